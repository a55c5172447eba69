"""Makes docs/page.png: the page on the simulated SoC after an answer. ``python -m tests.server.screenshot``

``--all FOLDER`` makes page.png, page-dark.png and page-phone.png there, to look at after a change of the page.
"""
import argparse
import subprocess
import sys
from pathlib import Path

from tests.server.chromium import Chromium
from tests.server.running import listening_at
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
ENTER = "\ue007"
SHOTS = {"page": {"width": 1200, "height": 1000}, "page-dark": {"width": 1200, "height": 1000, "dark": True},
         "page-phone": {"width": 500, "height": 1900}}


def shot(url: str, path: Path, window: dict) -> None:
    """Two turns, and a picture of what is there then."""
    with Chromium(**window) as browser:
        idle = lambda: not browser.run("return document.getElementById('send').disabled")
        browser.go(url + "/")
        browser.await_text("#about", "stories")
        browser.run("document.getElementById('max_tokens').value = 70")
        for text in ("Once upon a time, there was a little dragon", "Then the dragon saw"):
            browser.run("document.getElementById('prompt').focus()")
            browser.type(text + ENTER)
            until(idle)
        until(lambda: not browser.run("return document.getElementById('bar').hidden"))
        browser.run("window.scrollTo(0, 0)")
        path.write_bytes(browser.screenshot())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--all", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    serve = subprocess.Popen([sys.executable, "-m", "llama2_host", "serve", "--sim", "--http-port", "0", "-t", "0"],
                             cwd=ROOT,
                             stdout=subprocess.PIPE, text=True)
    try:
        url = listening_at(serve, 600)
        for name in SHOTS if args.all else ("page",):
            shot(url, (args.all or ROOT / "docs") / f"{name}.png", SHOTS[name])
    finally:
        serve.terminate()
        serve.communicate()


if __name__ == "__main__":
    main()
