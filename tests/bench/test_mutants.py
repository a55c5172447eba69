"""Mutants are what they are said to be, meet the tests that concern them, and their fates are told apart; the recorded
run is long enough and clean."""
import ast
import json
import textwrap

import pytest

from bench import mutant_plan, mutant_tests, mutants, mutation, mutation_c
from bench.equivalent_mutants import EQUIVALENT
from bench.mutant_trees import BaselineError, Known, Tree
from bench.mutant_plugin import in_order
from bench.mutation import Mutant

ROOT    = mutants.ROOT
SOURCE  = ROOT/"spec"/"llama2_spec"/"traffic.py"
TESTS   = ROOT/"tests"/"spec"/"test_traffic.py"
LLAMA2  = ROOT/"tests"/"firmware"/"test_llama2.py"


def changes(source, made):
    return [(mutant.scope, mutant.change) for mutant in made(textwrap.dedent(source))]


def test_mutants_of_c():
    """Comments, texts, declarations, types and what is outside of functions stay."""
    assert changes("""\
        static const int table[2] = {1, 2}; /* a + b */
        #define NEXT(x) ((x) + 1)
        static int f(uint8_t *p, int n)
        {
        \tint left = -n;
        \tfor (int i = 0; i < n; i++)
        \t\tp[i] = "+1"[i];
        \tif (n && !left) // no
        \t\tg(n,
        \t\t  &left);
        \treturn (uint32_t)-n - 0x1fu;
        }
        """, mutation_c.mutants) == [("f", change) for change in (
            "for (int i = 0; i < n; i++) -> for (int i = 1; i < n; i++)",
            "for (int i = 0; i < n; i++) -> for (int i = 0; i <= n; i++)",
            "for (int i = 0; i < n; i++) -> for (int i = 0; i < n; i--)",
            'p[i] = "+1"[i]; -> ;',
            "if (n && !left) // no -> if (!(n && !left)) // no",
            "if (n && !left) // no -> if (n || !left) // no",
            "if (n && !left) // no -> if (n && left) // no",
            "g(n, &left); -> ;",
            "return (uint32_t)-n - 0x1fu; -> return (uint32_t)-n + 0x1fu;",
            "return (uint32_t)-n - 0x1fu; -> return (uint32_t)-n - 32u;")]


def test_mutants_of_python_everywhere():
    assert changes('''\
        LIMIT = 3
        class A:
            """1 + 1."""
            def f(self, n=5):
                if not n and n in self.all[1:]:
                    raise ValueError(f"{n + 1} is one too many")
                self.last.append(n + 2)
                return n if n == 7 else 0
        ''', lambda source: mutation.mutants(source, kinds=mutation.Everywhere)) == [("A.f", change) for change in (
            "not n and n in self.all[1:] -> not (not n and n in self.all[1:])",
            "not n and n in self.all[1:] -> not n or n in self.all[1:]",
            "not n -> n",
            'raise ValueError(f\'{n + 1} is one too many\') -> (dropped)',
            "self.last.append(n + 2) -> (dropped)",
            "n + 2 -> n - 2", "n + 2 -> n + 3",
            "n == 7 -> not (n == 7)", "n == 7 -> n != 7", "n == 7 -> n == 8",
            "n if n == 7 else 0 -> n if n == 7 else 1")]


def test_a_mutant_changes_what_it_says_and_nothing_else():
    """In brackets where the surroundings would bind tighter."""
    source = "def f(a, b, c):\n    return a ^ b & c  # why\n"
    made = {mutant.change: mutant.source for mutant in mutation.mutants(source)}
    assert made == {"a ^ b & c -> a | b & c": "def f(a, b, c):\n    return (a | b & c)  # why\n",
                    "b & c -> b | c": "def f(a, b, c):\n    return a ^ (b | c)  # why\n"}


@pytest.mark.parametrize("file", ["accel/dram/crc.py", "spec/llama2_spec/frame.py", "firmware/schedule.c"])
def test_mutants_of_real_sources_differ_from_them_and_from_each_other(file):
    path = ROOT/file
    found = mutant_plan.mutants_of(path)
    texts = [mutant.source for mutant in found.values()]
    assert len(set(texts)) == len(texts) > 30 and path.read_text() not in texts
    if path.suffix == ".py":
        trees = [ast.dump(ast.parse(text)) for text in texts]
        assert ast.dump(ast.parse(path.read_text())) not in trees


def test_the_two_that_once_survived_are_mutants_still():
    """So that a run of the reader's mutants meets the first; the second has gone with the line that did nothing."""
    reader = mutant_plan.mutants_of(ROOT/"accel"/"dram"/"reader.py")
    assert "SegmentReader._beats: s.blocks.busy | flying -> s.blocks.busy & flying" in reader


def test_every_source_has_mutants_of_its_own_and_tests_that_concern_it():
    paths = mutant_plan.sources()
    assert len(paths) > 80
    planned = mutant_plan.plan(paths, 1, mutant_plan.COUNT)
    assert len(planned) == len({(one.file, one.name) for one in planned}) > 200
    for path in paths:
        assert sum(one.path == path for one in planned) >= min(mutant_plan.LEAST, len(mutant_plan.mutants_of(path)))
        assert mutant_tests.near_files(path), path
    reader, sampler = ROOT/"accel"/"dram"/"reader.py", ROOT/"firmware"/"sampler.c"
    assert mutant_tests.near_files(reader) == {ROOT/"tests"/"accel"/"test_reader.py"}
    assert ROOT/"tests"/"spec"/"test_sampling.py" in mutant_tests.near_files(sampler)
    assert ROOT/"tests"/"accel"/"test_core.py" in mutant_tests.nearest(reader)


def test_the_seed_draws_and_each_file_draws_alone():
    paths = mutant_plan.sources("accel/dram")
    drawn = mutant_plan.plan(paths, 1, 30)
    assert drawn == mutant_plan.plan(paths, 1, 30) != mutant_plan.plan(paths, 2, 30)
    assert {one.path for one in drawn} == set(paths)
    assert [one.path for one in drawn[:len(paths)]] == paths          # one of each file first
    assert mutant_plan.sources("accel/dram/reader.py") == [ROOT/"accel"/"dram"/"reader.py"]


def test_tests_come_nearest_first_then_quickest():
    steps, seconds = {"near.py": 0, "far.py": 3}, {"near.py::slow": 9.0, "near.py::quick": 1.0, "far.py::quick": 0.1,
                                                   "far.py::slow": 45.0}
    names = ["far.py::slow", "far.py::unknown", "far.py::quick", "near.py::slow", "near.py::quick"]
    expected = ["near.py::quick", "near.py::slow", "far.py::quick", "far.py::unknown", "far.py::slow"]
    assert in_order(names, steps=steps, seconds=seconds, limit_s=100) == expected
    assert in_order(names, steps=steps, seconds=seconds, limit_s=12) == expected[:4]
    assert in_order(names[:1], steps=steps, seconds=seconds, limit_s=16) == names[:1]


def test_listed_equivalents_are_mutants_and_have_a_reason():
    for file, listed in EQUIVALENT.items():
        assert listed.keys() <= mutant_plan.mutants_of(ROOT/file).keys(), file
        assert all(len(reason) > 20 for reason in listed.values())


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    tree = Tree(tmp_path_factory.mktemp("objects"))
    yield tree
    tree.close()


@pytest.fixture
def nearby(monkeypatch):
    """Leaves only the nearest tests of a file."""
    monkeypatch.setattr(mutant_tests, "nearest", lambda path, nearest=mutant_tests.nearest: {
        tests: steps for tests, steps in nearest(path).items() if tests in (TESTS, LLAMA2)})


def test_fates_are_told_apart_and_the_tree_is_left_as_it_was(tree, tmp_path, nearby):
    known, text, fates = Known(tmp_path/"tests.json"), SOURCE.read_text(), {}
    for name, source in {
            "caught": text.replace("def useful_beats(", "def useful_beats(*_):\n    return 7\n\n\ndef unused("),
            "survives": text + "\n# no change\n", "stillborn": text + "\n)\n"}.items():
        assert source != text
        fates[name], by = tree.judge(SOURCE, Mutant(1, "", "", source), known, 60)
        assert by.startswith("tests/spec/test_traffic.py::test_") == (name == "caught")
    assert fates == {name: name for name in fates}
    assert SOURCE.read_text() == text == (tree.root/SOURCE.relative_to(ROOT)).read_text()
    assert all(known.passes(name) for name in known.seconds()) and len(known.seconds()) > 3
    assert Known(tmp_path/"tests.json").kept == known.kept


def test_a_survivor_is_asked_by_all_tests_of_the_nearest_files(tree, tmp_path, nearby):
    """Also by those that are beyond the limit: here all but one, which has nothing to do with the mutant."""
    known, text = Known(tmp_path/"tests.json"), SOURCE.read_text()
    known.kept[f"{TESTS.relative_to(ROOT)}::test_a_cache_row_has_its_exponents_in_front"] = {"seconds": 0, "tree": ""}
    mutant = Mutant(1, "", "", text.replace("def useful_beats(", "useful_beats = lambda *_: 7\n\n\ndef unused("))
    steps = {TESTS.relative_to(ROOT).as_posix(): 0}
    assert tree._with(SOURCE, mutant, steps, known, 0.0) == ("", "")
    assert tree.judge(SOURCE, mutant, known, 0.0, thorough=False)[0] == "survives"
    assert tree.judge(SOURCE, mutant, known, 0.0)[0] == "caught"


def test_what_only_a_test_s_file_cannot_import_is_caught(tree, tmp_path, nearby):
    source = SOURCE.read_text().replace("def useful_beats(", "def other_beats(")
    assert tree.judge(SOURCE, Mutant(1, "", "", source), Known(tmp_path/"tests.json"), 60) == (
        "caught", TESTS.relative_to(ROOT).as_posix())


def test_c_that_does_not_compile_is_stillborn(tree, tmp_path, nearby):
    source, known = ROOT/"firmware"/"main.c", Known(tmp_path/"tests.json")
    text = source.read_text()
    assert tree.judge(source, Mutant(1, "", "", text + "}\n"), known, 60) == ("stillborn", "")
    fate, by = tree.judge(source, Mutant(1, "", "", text.replace("llama2_init();", ";")), known, 60)
    assert fate == "caught" and by.endswith("::test_main_brings_up_everything_and_serves")


def put(tree, name, body):
    """A test of one's own in the tree; its name."""
    (tree.root/"tests"/"spec"/f"test_{name}.py").write_text(f"import os\n\n\ndef test_{name}():\n    {body}\n")
    return f"tests/spec/test_{name}.py::test_{name}"


@pytest.mark.parametrize("name, body, fate", [("hang", "while True: pass", "hangs"),
                                              ("crash", "os._exit(1)", "caught"), ("abort", "os.abort()", "caught")])
def test_a_process_that_hangs_or_ends_is_caught(tree, tmp_path, name, body, fate):
    """A test that takes -1.9 s usually has 0.3 s."""
    known, test = Known(tmp_path/"tests.json"), put(tree, name, body)
    known.kept[test] = {"seconds": -1.9, "tree": ""}
    assert tree._ask({test.split("::")[0]: 0}, known, 60, compiled=False) == (fate, test)


def test_what_fails_without_a_mutant_can_t_judge(tree, tmp_path):
    known, test = Known(tmp_path/"tests.json"), put(tree, "broken", "assert False")
    with pytest.raises(BaselineError, match="test_broken.py::test_broken fails without a mutant"):
        tree.must_pass(test, known)
    assert not known.passes(test)


def fate(name, what, **more):
    file = SOURCE.relative_to(ROOT).as_posix()
    return mutants.Fate(**{"file": file, "name": name, "line": 1, "fate": what, "by": "", "seconds": 1.0,
                           "source": mutant_plan.digest(SOURCE), **more})


def test_a_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """A fate counts while its file is as it was, a survivor's while the tests are."""
    monkeypatch.setattr(mutants, "RECORD", tmp_path/"none.json")
    planned = mutant_plan.plan([SOURCE], 1, 4)
    tests = mutant_plan.digest(*sorted(mutant_tests.near_files(SOURCE)))
    kept = [fate(planned[0].name, "caught"), fate(planned[1].name, "caught", source="0"),
            fate(planned[2].name, "survives", tests=tests), fate(planned[3].name, "survives", tests="0")]
    (tmp_path/"fates.jsonl").write_text("".join(json.dumps(vars(one)) + "\n" for one in kept))
    campaign = mutants.Campaign(planned, tmp_path, limit_s=60)
    assert campaign.left() == [planned[1], planned[3]] and campaign.found() == [kept[0], kept[2]]
    campaign.run(1, until=0.0)                      # no time: nothing is judged, nothing lost
    assert campaign.left() == [planned[1], planned[3]]


def test_the_share_is_of_those_that_live(monkeypatch):
    fates = [fate("a", "caught"), fate("b", "hangs"), fate("c", "stillborn"), fate("d", "survives")]
    assert mutants.share(fates) == pytest.approx(2/3) and mutants.share(fates[2:3]) == 0
    monkeypatch.setitem(EQUIVALENT, fates[3].file, {"d": "read by a person"})
    assert mutants.counts(fates) == {"caught": 1, "hangs": 1, "stillborn": 1, "equivalent": 1}


@pytest.mark.parametrize("arguments, message", [(["--only", "accel/nowhere.py"], "no source that is mutated"),
                                                (["--jobs", "0"], "1 at least"), (["--count", "0"], "1 at least")])
def test_bad_options_end_in_a_line(arguments, message, capsys):
    with pytest.raises(SystemExit):
        mutants.main(arguments)
    assert message in capsys.readouterr().err


def test_recorded_run_is_long_enough_and_clean():
    record = json.loads(mutants.RECORD.read_text())
    fates = [mutants.Fate(**one) for one in record["mutants"]]
    number = mutants.counts(fates)
    assert len(fates) - number["stillborn"] >= 200 and number["survives"] == 0
    assert mutants.share(fates) >= mutants.SHARE
    assert record["files"] == mutants.summary(fates)
    assert {"accel", "firmware", "spec", "host"} == {fate.file.split("/")[0] for fate in fates}
