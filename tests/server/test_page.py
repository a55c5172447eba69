"""The page in a real Chromium: it streams, stops, remembers, and takes the model's text for text."""
import threading

import pytest

from llama2_host.image.model import Model
from llama2_host.server.hardware import Hardware
from tests.server.chromium import Chromium
from tests.server.running import Running
from tests.server.scripted import Scripted
from tests.waiting import until

pytestmark = pytest.mark.web
TAB, ENTER, ESCAPE = "\ue004", "\ue007", "\ue00c"
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>é&lt;b>"


@pytest.fixture(scope="module")
def browser():
    with Chromium() as chromium:
        yield chromium


@pytest.fixture
def backend(image):
    return Scripted(Model.load(image), lambda position: 3 + ord("a"), threading.Semaphore(0))


@pytest.fixture
def server(backend):
    with Running(lambda: backend) as running:
        yield running
        backend.gate.release(1000)


@pytest.fixture
def page(browser, server):
    """The page, loaded and empty."""
    browser.go(server.url + "/")
    browser.await_text("#about", "tiny")
    browser.await_text("#where", "board-0")
    browser.run("localStorage.clear(); sessionStorage.clear()")
    browser.console()
    return browser


def ask(page, text):
    page.run("document.getElementById('prompt').focus()")
    page.type(text + ENTER)


def test_an_answer_streams(page, backend):
    ask(page, "hello")
    page.await_text("#messages .user .text", "hello")
    for count in (1, 2, 3):
        backend.gate.release(1)
        until(lambda count=count: page.text("#messages .assistant .text") == "a" * count)
    assert not page.run("return document.getElementById('stop').disabled")
    backend.gate.release(1000)
    until(lambda: not page.run("return document.getElementById('send').disabled"))
    page.await_text("#cached", "0 of 7")
    assert page.console() == []


def test_stop_frees_the_device_and_keeps_what_was_said(page, backend, server):
    ask(page, "hello")
    backend.gate.release(2)
    page.await_text("#messages .assistant .text", "aa")
    page.click("#stop")
    until(lambda: server.pool.aborted == 1)
    backend.gate.release(1)
    until(lambda: backend.aborts == 1)
    assert backend.made == 3 and page.text("#messages .assistant .text") == "aa"
    assert page.text("#failure") == ""


def test_a_reload_keeps_the_conversation_and_a_new_one_forgets_it(page, backend, server):
    backend.gate.release(1000)
    page.run("document.getElementById('max_tokens').value = 3")
    ask(page, "remember me")
    page.await_text("#messages .assistant .text", "aaa")
    until(lambda: not page.run("return document.getElementById('send').disabled"))
    page.go(server.url + "/")
    page.await_text("#messages", "remember me")
    page.await_text("#messages .assistant .text", "aaa")
    page.click("#reset")
    page.go(server.url + "/")
    page.await_text("#about", "tiny")
    assert page.text("#messages") == ""


def test_two_tabs_have_a_conversation_each(page, backend, server):
    backend.gate.release(1000)
    page.run("document.getElementById('max_tokens').value = 2")
    first = page.tab()
    ask(page, "first")
    until(lambda: page.text("#messages .assistant .text") == "aa")
    page.new_tab()
    page.go(server.url + "/")
    page.await_text("#about", "tiny")
    page.click("#reset")
    page.run("document.getElementById('max_tokens').value = 2")
    ask(page, "second")
    page.await_text("#messages .user .text", "second")
    until(lambda: not page.run("return document.getElementById('send').disabled"))
    page.switch(first)
    page.go(server.url + "/")
    page.await_text("#messages .user .text", "first")
    assert "second" not in page.text("#messages")


@pytest.mark.parametrize("who", ["model", "user"])
def test_hostile_text_is_text(page, backend, who):
    hostile = HOSTILE.encode()
    if who == "model":
        first = 3 + 2       # BOS, a space, x
        backend.script = lambda position: 3 + hostile[position - first] if position - first < len(hostile) else 2
    backend.gate.release(1000)
    page.run(
        "document.getElementById('max_tokens').value = 150; document.getElementById('prompt').value = arguments[0]",
             HOSTILE if who == "user" else "xx")
    ask(page, "")
    page.await_text("#messages .text", HOSTILE)
    until(lambda: not page.run("return document.getElementById('send').disabled"))
    assert page.run("return document.title") == "LLaMA on an FPGA"
    assert page.run("return document.querySelectorAll('#messages img, #messages script').length") == 0


def test_the_panel_says_where_the_cycles_went(page, backend, server):
    """Phases and CPU are all cycles; the counters overlap, and are shares of their own."""
    phase = lambda cycles, beats, starved=0: {"cycles": cycles, "beats": beats, "starved": starved, "fenced": 0,
                                              "stalled": 5}
    server.boards[0].hardware = Hardware(1000, 1, 1, 1, {"s1_qkv": phase(300, 280, 100), "s4_output": phase(100, 150),
                                                         "s3_store": phase(0, 0),
                                                         "classify": phase(550, 520, 200)}, 50, 950 * 16)
    backend.gate.release(1000)
    ask(page, "hello")
    page.await_text("#shares", "CPU and link 5 %")
    assert page.text("#shares li").split("|") == ["Q, K and V 30 %", "output 10 %", "logits 55 %", "CPU and link 5 %"]
    shown = page.text("#meters li").split("|")
    assert all(text.endswith(share) for text, share in zip(shown, ("DRAM95 %", "there30 %", "results0 %", "taken1.5 %"),
                                                           strict=True)), shown
    widths = page.run("return [...document.querySelectorAll('#bar i')].map(e => e.getBoundingClientRect().width)")
    assert widths[2] > widths[0] > widths[1] > widths[3] > 0
    assert page.run("return document.getElementById('bar').getAttribute('aria-label')").startswith(
        "Q, K and V 30 %, output 10 %")


def test_nothing_from_outside_and_no_inline_script(page, server):
    policy = server.client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    loaded = page.run("return performance.getEntriesByType('resource').map(e => e.name)")
    assert loaded and all(name.startswith(server.url) for name in loaded)
    page.run("const s = document.createElement('script'); s.textContent = \"document.title = 'owned'\"; "
             "document.body.append(s)")
    assert page.run("return document.title") == "LLaMA on an FPGA"


def test_everything_has_a_label(page):
    controls = page.find("textarea, input, button")
    assert page.run("return new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size === "
                    "document.querySelectorAll('[id]').length")
    assert len(controls) >= 12 and all(page.label(control) for control in controls)
    assert page.run("return document.getElementById('messages').getAttribute('aria-live')") == "polite"
    assert page.run("return document.documentElement.lang") == "en"


def test_it_works_without_a_mouse(page, backend):
    page.run("document.getElementById('prompt').focus()")
    page.type("keys" + TAB)
    assert page.run("return document.activeElement.id") == "send"
    page.type(ENTER)
    backend.gate.release(1)
    page.await_text("#messages .assistant .text", "a")
    page.type(ESCAPE)
    until(lambda: not page.run("return document.getElementById('send').disabled"))
    backend.gate.release(1)


def test_an_error_is_said(page, backend):
    backend.gate.release(1000)
    ask(page, "x" * 300)
    page.await_text("#failure", "context has 256 positions")
    assert page.run("return document.getElementById('prompt').value") == "x" * 300


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_s_width_is_enough(server, dark):
    with Chromium(width=500, height=800, dark=dark) as phone:
        phone.go(server.url + "/")
        phone.await_text("#about", "tiny")
        assert phone.run("return document.documentElement.scrollWidth <= window.innerWidth")
        colour = phone.run("return getComputedStyle(document.body).backgroundColor")
        assert (colour == "rgb(255, 255, 255)") != dark


def test_a_key_is_asked_for(browser, image):
    backend = Scripted(Model.load(image), lambda position: 3 + ord("a"))
    with Running(lambda: backend, keys=("a-secret-key",)) as server:
        browser.go(server.url + "/")
        browser.await_text("#failure", "API key")
        browser.run("document.getElementById('key').focus()")
        browser.type("a-secret-key" + TAB)
        browser.await_text("#about", "tiny")
