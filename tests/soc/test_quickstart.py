"""Every command of docs/quickstart.md runs, from top to bottom, in this clone, and does what the page says."""
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT/"docs"/"quickstart.md").read_text()

pytestmark = pytest.mark.soc


def blocks():
    """(label, script) of the page's shell blocks, in order."""
    return re.findall(r"^```sh ?([^\n]*)\n(.*?)^```$", PAGE, re.M | re.S)


def environment(tmp_path):
    """As a user has it: a cache of one's own, nothing activated but what the commands activate."""
    return os.environ | {"LLAMA2_HOST_CACHE": str(tmp_path/"cache")}


def run(script, env, **options):
    done = subprocess.run(["bash", "-euc", script], cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, **options)
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_page_runs_from_top_to_bottom(tmp_path):
    env = environment(tmp_path)
    activate = ". .venv/bin/activate\n"
    said, first = [], None
    for label, script in blocks():
        if label == "first shell":
            first = script
        elif label == "second shell":
            said.append(two_shells(first, script, env))
        else:
            said.append(run(activate + script, env))
    answer, story, chat, another, equal, scripted = said
    assert "Once upon a time" in answer and "Once upon a time" in story    # make tells what it installs before
    assert len(chat.split()) > 5
    assert "q4" in another and "Once upon a time" in another
    assert equal.endswith("equal\n")
    assert scripted.startswith("Once upon a time")


def two_shells(first, second, env):
    """What the second shell's chat says to one line, while the first one's simulator runs."""
    listening = re.search(r"^# listening on (\S+)$", first, re.M)[1]
    simulator = subprocess.Popen(["bash", "-euc", first.replace("python targets", "exec python targets")], cwd=ROOT,
                                 env=env, text=True,
                                 stdout=subprocess.PIPE)
    try:
        url = next(line.split()[-1] for line in simulator.stdout if line.startswith("listening on "))
        assert listening in second
        return run(second.replace(listening, url).rstrip("\n") + " --steps 20\n", env,
                   input="Once upon a time\n/quit\n")
    finally:
        simulator.terminate()
        simulator.wait()


def test_the_test_sees_all_blocks():
    assert len(blocks()) == PAGE.count("```sh") == 7
    assert [label for label, _ in blocks() if label] == ["first shell", "second shell"]
