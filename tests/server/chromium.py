"""A headless Chromium, spoken to by WebDriver through Debian's chromedriver."""
# Ref: W3C WebDriver
import base64
import subprocess
import tempfile

import httpx

from tests.waiting import PATIENCE_S, until

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Chromium:
    """A browser with a fresh profile; a context manager."""

    def __init__(self, *, width: int = 1200, height: int = 900, dark: bool = False):
        self.options = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                        f"--window-size={width},{height}",
                        *(["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else [])]

    def __enter__(self) -> "Chromium":
        self._profile = tempfile.TemporaryDirectory(prefix="llama2-chromium-")
        self._driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        text=True)
        for line in self._driver.stdout:
            if "started successfully on port" in line:
                port = int(line.rstrip(".\n").rsplit(" ", 1)[1])
                break
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S)
        options = {"args": [*self.options, f"--user-data-dir={self._profile.name}"]}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options,
                                                   "goog:loggingPrefs": {"browser": "ALL"}}}}
        self._session = f"/session/{self._ask('POST', '/session', wanted)['sessionId']}"
        return self

    def __exit__(self, *_) -> None:
        try:
            self._ask("DELETE", self._session)
        finally:
            self._client.close()
            self._driver.terminate()
            self._driver.wait(PATIENCE_S)
            self._driver.stdout.close()
            self._profile.cleanup()

    def _ask(self, method: str, path: str, body: dict | None = None):
        answer = self._client.request(method, path, json=body if body is not None else {} if method == "POST"
                                      else None).json()["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise AssertionError(answer["message"])
        return answer

    def go(self, url: str) -> None:
        self._ask("POST", self._session + "/url", {"url": url})

    def run(self, script: str, *args):
        """The value of a function's body in JavaScript."""
        return self._ask("POST", self._session + "/execute/sync", {"script": script, "args": args})

    def find(self, selector: str) -> list[str]:
        return [found[ELEMENT] for found in self._ask("POST", self._session + "/elements",
                                                      {"using": "css selector", "value": selector})]

    def click(self, selector: str) -> None:
        self._ask("POST", f"{self._session}/element/{self.find(selector)[0]}/click")

    def type(self, text: str) -> None:
        """Keys to whatever has the focus."""
        keys = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self._ask("POST", self._session + "/actions", {"actions": [{"type": "key", "id": "keys", "actions": keys}]})

    def label(self, element: str) -> str:
        """What a screen reader says."""
        return self._ask("GET", f"{self._session}/element/{element}/computedlabel")

    def text(self, selector: str) -> str:
        return self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent).join('|')",
                        selector)

    def await_text(self, selector: str, wanted: str) -> None:
        try:
            until(lambda: wanted in self.text(selector))
        except AssertionError:
            raise AssertionError(f"{selector} has {self.text(selector)!r}, not {wanted!r}") from None

    def new_tab(self) -> str:
        handle = self._ask("POST", self._session + "/window/new", {"type": "tab"})["handle"]
        self.switch(handle)
        return handle

    def tab(self) -> str:
        return self._ask("GET", self._session + "/window")

    def switch(self, handle: str) -> None:
        self._ask("POST", self._session + "/window", {"handle": handle})

    def console(self) -> list[str]:
        """Complaints of the page."""
        return [entry["message"] for entry in self._ask("POST", self._session + "/se/log", {"type": "browser"})
                if entry["level"] == "SEVERE"]

    def screenshot(self) -> bytes:
        return base64.b64decode(self._ask("GET", self._session + "/screenshot"))
