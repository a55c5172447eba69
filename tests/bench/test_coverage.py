"""`make coverage` counts what is there, and nothing is left out without a reason."""
import json
import re
import subprocess

import pytest

from bench import coverage
from bench.coverage import Counted
from tests.firmware import library

SIGN = """\
int sign(int x)
{
	if (x < 0 || x == 7)
		return -1;
	return x > 0;
}
"""
PRAGMA = re.compile(r"#\s*pragma:(.*)$")


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """A firmware of one file, compiled anew for each call with the values that a test tries."""
    monkeypatch.setattr(coverage, "ROOT", tmp_path)
    monkeypatch.setattr(coverage, "BUILD", tmp_path/"build")
    monkeypatch.setenv(library.COUNTED, str(tmp_path/"build"/"firmware"))
    (tmp_path/"build"/"firmware").mkdir(parents=True)
    (tmp_path/"firmware").mkdir()
    (tmp_path/"firmware"/"sign.c").write_text(SIGN)

    def tries(*values):
        calls = "".join(f"sign({value});" for value in values)
        (tmp_path/"main.c").write_text(f"int sign(int); int main(void) {{ {calls} return 0; }}")
        subprocess.run(["gcc", "-o", tmp_path/"main", tmp_path/"main.c", tmp_path/"firmware"/"sign.c",
                        *library.counting()], check=True)
        subprocess.run([tmp_path/"main"], check=True)
    return tries


def test_branches_of_several_builds_are_added(counted):
    counted(-1)
    assert coverage.firmware_files({})["firmware/sign.c"] == Counted(
        4, 3, 4, 1, ["3: if (x < 0 || x == 7)  (3 of 4)", "5: return x > 0;"])
    counted(3)
    assert coverage.firmware_files({})["firmware/sign.c"].missed == ["3: if (x < 0 || x == 7)  (1 of 4)"]
    counted(7)
    assert coverage.firmware_files({})["firmware/sign.c"] == Counted(4, 4, 4, 4, [])


def test_a_line_with_a_reason_does_not_count_and_one_that_needs_none_is_told(counted):
    counted(-1, 3)
    reasons = {("sign.c", "if (x < 0 || x == 7)"): "seven never comes", ("sign.c", "return x > 0;"): "none"}
    assert coverage.firmware_files(reasons)["firmware/sign.c"] == Counted(4, 4, 3, 3, [])
    assert reasons == {("sign.c", "return x > 0;"): "none"}


def test_nothing_is_compiled_differently_without_coverage(monkeypatch):
    monkeypatch.delenv(library.COUNTED, raising=False)
    assert library.counting() == []


def test_a_python_file_s_missed_lines_and_jumps():
    found = coverage.python_file({
        "summary": {"num_statements": 9, "covered_lines": 7, "num_branches": 6, "covered_branches": 3},
        "missing_lines": [4, 5], "missing_branches": [[3, 4], [4, 5], [7, -1]]})
    assert found == Counted(9, 7, 6, 3, ["4", "5", "3 to 4", "7 to the end"]) and found.percent == 50


def test_packages_and_rooms_are_sums():
    files = {"host/llama2_host/cli.py": Counted(10, 9, 4, 3), "host/llama2_host/link.py": Counted(5, 5, 2, 2),
             "host/llama2_host/chat/saved.py": Counted(3, 3, 0, 0), "firmware/slot.c": Counted(8, 8, 2, 1)}
    assert coverage.summed(files, coverage.package) == {
        "host/llama2_host": Counted(15, 14, 6, 5), "host/llama2_host/chat": Counted(3, 3, 0, 0),
        "firmware/slot.c": Counted(8, 8, 2, 1)}
    assert Counted(3, 3, 0, 0).percent == Counted().percent == 100


def test_every_line_of_python_that_is_left_out_has_its_reason():
    lines = [(path, line) for room in ("spec", "host") for path in (coverage.ROOT/room).rglob("*.py")
             for line in path.read_text().splitlines()]
    for path, line in lines:
        if match := PRAGMA.search(line):
            assert re.fullmatch(r" no (cover|branch): \w.{8,}", match[1]), f"{path}: {line.strip()}"


def test_every_line_of_the_firmware_that_is_left_out_is_there_and_has_its_reason():
    for (name, text), reason in coverage.reasons().items():
        lines = [line.strip() for line in (coverage.ROOT/"firmware"/name).read_text().splitlines()]
        assert text in lines and len(reason) > 10


def test_the_recorded_run_reaches_the_targets():
    rooms = json.loads(coverage.RESULTS.read_text())["rooms"]
    assert rooms.keys() == coverage.TARGETS.keys()
    for room, figures in rooms.items():
        assert Counted(**figures).percent >= coverage.TARGETS[room]
