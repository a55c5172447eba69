"""The worker that renders templates keeps its limits where the platform has no resource module, as on Windows."""
import json
import subprocess
import sys

from llama2_host.chat.jinja_template import OUT_OF_TIME, WORKER
from llama2_host.chat.jinja_worker import OUT_OF_TIME as BY_TIMER

WITHOUT_RESOURCE = "import runpy, sys; sys.modules['resource'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def ask(*sources):
    """Answers to these templates, and the worker's exit status."""
    requests = "".join(json.dumps({"source": source, "context": {"word": "a"}}) + "\n" for source in sources)
    done = subprocess.run([sys.executable, "-c", WITHOUT_RESOURCE, WORKER], input=requests, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()], done.returncode


def test_renders_and_refuses_without_resource():
    answers, status = ask("{{ word }}b", "{{ ''.__class__.__mro__ }}", "{{ 2 ** 9 }}")
    assert answers[0] == {"text": "ab"} and status == 0
    assert answers[1]["error"] == answers[2]["error"] == "render"


def test_a_timer_ends_an_endless_template():
    answers, status = ask("{{ word }}", ENDLESS)
    assert answers == [{"text": "a"}]
    assert status == BY_TIMER and status in OUT_OF_TIME
