"""Makes docs/page.png: the page on the simulated SoC after an answer. ``python -m tests.server.screenshot``"""
import subprocess
import sys
from pathlib import Path

from tests.server.chromium import Chromium
from tests.server.running import until

ROOT = Path(__file__).resolve().parents[2]
ENTER = "\ue007"


def main() -> None:
    serve = subprocess.Popen([sys.executable, "-m", "llama2_host", "serve", "--sim", "--http-port", "0", "-t", "0"], cwd=ROOT,
                             stdout=subprocess.PIPE, text=True)
    try:
        url = serve.stdout.readline().removeprefix("listening on ").strip()
        with Chromium(width=1200, height=1000) as browser:
            browser.go(url + "/")
            browser.await_text("#about", "stories")
            browser.run("document.getElementById('max_tokens').value = 60; document.getElementById('prompt').focus()")
            browser.type("Once upon a time" + ENTER)
            until(lambda: not browser.run("return document.getElementById('send').disabled")
                  and not browser.run("return document.getElementById('bar').hidden"))
            (ROOT / "docs" / "page.png").write_bytes(browser.screenshot())
    finally:
        serve.terminate()
        serve.communicate()


if __name__ == "__main__":
    main()
