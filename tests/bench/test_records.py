"""A record knows of which sources it is, and `make docs` refuses those of earlier ones."""
import json
import re

import pytest

from bench import emit_docs, records
from bench.essence import bare_c, bare_make, bare_python
from tests import imports

CODE = 'def f(a):\n    return a + "# no comment"\n'


@pytest.fixture
def digests_anew():
    """Call it where sources changed; the digests of other tests stay as they are."""
    def clear():
        records.digest.cache_clear()
        records.core_digest.cache_clear()
    yield clear
    clear()


@pytest.fixture
def pages(tmp_path, monkeypatch):
    """The pages and the records of a folder of its own, every record of today's sources; returns the folder."""
    for name in ("PAGE", "MODELS", "FAULTS", "PROOFS", "PLOT"):
        original = getattr(emit_docs, name)
        (tmp_path/original.name).write_text(original.read_text())
        monkeypatch.setattr(emit_docs, name, tmp_path/original.name)
    results = tmp_path/"results"
    results.mkdir()
    monkeypatch.setattr(emit_docs, "RESULTS", results)
    for name in records.names():
        record = json.loads((records.RESULTS/f"{name}.json").read_text())
        record.pop(records.MADE, None)
        parts = record if records.kind_of(name).parts else {"": record}
        for part in parts.values():
            part[records.MADE] = {"digest": records.digest(records.kind_of(name)), "commit": "abcdef0"}
        (results/f"{name}.json").write_text(json.dumps(record))
    return tmp_path


@pytest.mark.parametrize("other, same", [
    ('"""Told."""\n\n\n# Why\ndef f(a):  # because\n    """More."""\n    return a + "# no comment"\n', True),
    ('# Wärmer\n' + CODE, True), (CODE.replace("\n    ", "   \n\n    "), True), (CODE.replace("a +", "a  +"), False),
    (CODE.replace("no comment", "a comment"), False), (CODE + "f(1)\n", False)])
def test_what_a_python_file_says(other, same):
    assert (bare_python(other) == bare_python(CODE)) == same
    assert bare_python(CODE) == CODE


def test_docstrings_say_nothing_and_other_texts_do():
    one   = ('class A:\n    """Größe × zwei."""\n    x = 1\n    def f(self):\n        """More.\n\n'
             '        And more.\n        """\n')
    other = 'class A:\n    """Else."""\n    x = 1\n    def f(self):\n        """"""\n'
    assert bare_python(one) == bare_python(other) == "class A:\n    x = 1\n    def f(self):\n"
    assert bare_python('x = "a"\n') != bare_python('x = "b"\n')


@pytest.mark.parametrize("other, same", [
    ("int a; /* two\nlines */\n", True), ("// line\nint a;\n", True), ("int b;\n", False),
    ('char *a = "/* x */";\n', False)])
def test_what_a_c_file_says(other, same):
    assert (bare_c(other) == bare_c("int a;\n")) == same
    assert bare_c('char *a = "/* x */ // y";\n') == 'char *a = "/* x */ // y";\n'


def test_what_a_makefile_says():
    assert bare_make("# Told\nA := 1\n\nb:  ## told\n\techo '#'\n") == "A := 1\nb:  ## told\n\techo '#'\n"


def test_every_record_is_of_a_kind_that_says_what_it_depends_on():
    assert records.names()
    for name in records.names():
        assert len(records.sources(records.kind_of(name))) > 5
    with pytest.raises(ValueError, match="thoughts.json is of no kind"):
        records.kind_of("thoughts")


def test_cycles_depend_on_the_core_the_soc_and_the_firmware_and_not_on_the_client():
    found = {path.relative_to(records.ROOT).as_posix() for path in records.sources(records.kind_of("cycles-x"))}
    assert {path.relative_to(records.ROOT).as_posix() for path in (records.ROOT/"accel").rglob("*.py")
            if path.stat().st_size} <= found
    assert {"firmware/generate.c", "firmware/linker.ld", "soc/base.py", "soc/sim/dram.py", "soc/sim/dram_bank.v",
            "spec/llama2_spec/program.py", "targets/sim.py"} <= found
    assert not any(name.startswith(("host/", "bench/", "tests/", "targets/arty")) for name in found)


def test_kinds_name_modules_files_and_pins_that_there_are():
    requirements = (records.ROOT/"requirements.txt").read_text().splitlines()
    for kind in records.KINDS:
        assert set(kind.modules) <= set(imports.modules())
        assert all(any(records.ROOT.glob(pattern)) for pattern in kind.files)
        assert all(any(line.startswith(pin) for line in requirements) for pin in kind.pins)


def test_all_benches_write_their_records_with_a_mark():
    """What names the folder of results or takes --json writes by bench.records, and no JSON by itself."""
    texts = {path.name: path.read_text() for path in (records.ROOT/"bench").rglob("*.py")}
    benches = {name for name, text in texts.items() if '"results"' in text or '"--json"' in text}
    assert len(benches) > 15
    marks = re.compile(r"records\.(write|write_part)|import .*(\brecord\b|write_record)")
    assert {name for name in benches if not marks.search(texts[name])} == {"emit_docs.py", "records.py"}    # they read
    assert {name for name, text in texts.items() if "write_text(json.dumps" in text} == {"records.py"}


@pytest.mark.parametrize("changed, old", [
    ("accel/core.py", {"cycles-stories-q8", "uart", "long-context", "resources"}),
    ("firmware/store.c", {"cycles-stories-q8", "uart", "long-context", "resources"}),
    ("host/llama2_host/checkpoint/gguf.py", {"accuracy", "conformance"}),
    ("spec/llama2_spec/golden.py", {"golden", "accuracy", "long-context"}), ("host/llama2_host/screen.py", set()),
    ("spec/llama2_spec/registers.py", {"cycles-stories-q8", "uart", "long-context", "resources"}),
    ("targets/arty.py", {"resources"})])
def test_a_changed_source_makes_old_what_depends_on_it_and_nothing_else(pages, monkeypatch, digests_anew, changed, old):
    names = ["cycles-stories-q8", "uart", "resources", "accuracy", "conformance", "golden", "long-context"]
    assert records.check(names, pages/"results") == []
    essence = records.essence
    monkeypatch.setattr(records, "essence",
                        lambda path: essence(path) + (b"x" if path == records.ROOT/changed else b""))
    digests_anew()
    assert {found.name for found in records.check(names, pages/"results")} == old


def test_a_core_that_does_the_same_makes_cycles_no_older_but_gates(pages, monkeypatch, tmp_path, digests_anew):
    """Before and after may be told in either order, and over several steps."""
    names, before = ["cycles-stories-q8", "uart", "resources", "timing-core-ecp5"], records.core_digest()
    essence = records.essence
    monkeypatch.setattr(records, "SAME", tmp_path/"same_cores.json")
    monkeypatch.setattr(records, "essence",
                        lambda path: essence(path) + (b"x" if path == records.ROOT/"accel/core.py" else b""))
    digests_anew()
    old = {found.name for found in records.check(names, pages/"results")}
    assert old == set(names)
    records.carry_over("another", "1111111")
    records.SAME.write_text(json.dumps([*json.loads(records.SAME.read_text()),
                                        {"before": "another", "after": before, "commit": "2222222"}]))
    assert {found.name for found in records.check(names, pages/"results")} == {"resources", "timing-core-ecp5"}


def test_a_soc_that_is_the_same_makes_simulated_figures_no_older(pages, monkeypatch, tmp_path, digests_anew):
    """Even where the core was another that does the same."""
    names = ["cycles-stories-q8", "uart", "simulator", "resources"]
    cycles = records.kind_of("cycles-stories-q8")
    monkeypatch.setattr(records, "SAME", tmp_path/"same_cores.json")
    monkeypatch.setattr(records, "SOCS", tmp_path/"same_socs.json")
    essence, core, before, touched = records.essence, records.core_digest(), records.digest(cycles), {"targets/sim.py"}
    monkeypatch.setattr(records, "essence", lambda path: essence(path) + (
        b"x" if path.relative_to(records.ROOT).as_posix() in touched else b""))
    digests_anew()
    assert {found.name for found in records.check(names, pages/"results")} == {"cycles-stories-q8", "uart", "simulator"}
    records.carry_over_socs({before: records.digest(cycles), "of no": "record"}, "1111111")
    assert {found.name for found in records.check(names, pages/"results")} == {"uart", "simulator"}
    touched.add("accel/core.py")
    digests_anew()
    assert {found.name for found in records.check(names, pages/"results")} == set(names)
    records.carry_over(core, "2222222")
    assert {found.name for found in records.check(names, pages/"results")} == {"uart", "simulator", "resources"}


def test_how_fast_a_simulator_is_depends_on_how_it_was_compiled(monkeypatch, tmp_path):
    """Also where a kind of simulated figures has the same digest."""
    monkeypatch.setattr(records, "SOCS", tmp_path/"same_socs.json")
    latency, slots = (records.kind_of(name) for name in ("server-latency", "server-slots-stories"))
    assert records.digest(latency) == records.digest(slots)
    records.carry_over_socs({"before": records.digest(slots)}, "1111111")
    assert "before" in records.digests(slots) and "before" not in records.digests(latency)


def test_a_new_pin_of_the_hardware_makes_cycles_old(monkeypatch, digests_anew):
    before = [records.digest(records.kind_of(name)) for name in ("cycles", "golden")]
    monkeypatch.setattr(records, "_pins", lambda beginnings: [f"{name}==99" for name in beginnings])
    digests_anew()
    assert [a == b for a, b in zip(before, (records.digest(records.kind_of(name)) for name in ("cycles", "golden")))
            ] == [False, True]


def test_fresh_records_are_written_without_a_note(pages):
    emit_docs.main([])
    for page in (emit_docs.PAGE, emit_docs.MODELS, emit_docs.PLOT):
        assert emit_docs.without_notes(page.read_text()) == page.read_text()


@pytest.mark.parametrize("spoil", [lambda record: record.pop(records.MADE), lambda record: record[records.MADE].update(
    digest="0123456789abcdef")])
def test_an_old_record_is_refused_in_a_line_that_says_how_to_make_it_again(pages, capsys, spoil):
    path = pages/"results"/"cycles-stories-q8.json"
    record = json.loads(path.read_text())
    spoil(record)
    path.write_text(json.dumps(record))
    emit_docs.PAGE.write_text("untouched")
    with pytest.raises(SystemExit, match="1 record is of earlier sources: .*--allow-stale.*no table was written"):
        emit_docs.main([])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "cycles-stories-q8.json is of an earlier core" in lines[0]
    assert lines[0].endswith(f"{record['command']} --json bench/results/cycles-stories-q8.json")
    assert emit_docs.PAGE.read_text() == "untouched"


def test_an_old_record_is_marked_with_its_commit_where_that_is_allowed(pages):
    path = pages/"results"/"cycles-stories-q8.json"
    record = json.loads(path.read_text()) | {records.MADE: {"digest": "", "commit": "abc1234"}}
    path.write_text(json.dumps(record))
    emit_docs.main(["--allow-stale"])
    rows = [line for line in emit_docs.PAGE.read_text().splitlines() if "*(of an earlier core, abc1234)*" in line]
    assert any(f"`{record['command']}`" in row for row in rows) and all("stories, q8, 2 columns" in row for row in rows)
    emit_docs.main(["--allow-stale"])       # the marks are found again when they are there
    assert [line for line in emit_docs.PAGE.read_text().splitlines() if "abc1234" in line] == rows


def test_a_prose_record_is_refused_too(pages):
    (pages/"results"/"golden.json").write_text("{}")
    assert "golden" in emit_docs.quoted()
    with pytest.raises(SystemExit, match="1 record is"):
        emit_docs.main([])


def test_a_measurement_during_which_a_source_changed_proves_nothing(tmp_path, monkeypatch):
    kind = records.kind_of("golden")
    newest = max(path.stat().st_mtime for path in records.sources(kind))
    monkeypatch.setattr(records, "STARTED", newest + 1)
    assert records.made("golden")["digest"] == records.digest(kind)
    monkeypatch.setattr(records, "STARTED", newest - 1)
    assert records.made("golden")["digest"] == ""
    records.write(tmp_path/"any.json", "golden", {"rows": []})
    assert records.stale("golden", json.loads((tmp_path/"any.json").read_text()))


def test_rows_of_before_keep_their_mark():
    old = {"rows": [], records.MADE: {"digest": "", "commit": "abc1234"}}
    assert records.marked("accuracy", old) == old
