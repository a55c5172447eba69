"""Options that cannot take effect are refused: every pair of them on the command line, and Python's arguments."""
import itertools

import pytest

from llama2_host import cli
from llama2_host.cli import create_parser
from llama2_host.combinations import CHOOSE, CombinationError
from llama2_host.commands import options
from llama2_host.connection import connect
from llama2_host.errors import HostError
from llama2_host.image.model import Model

#: one value for every option of generate, with which it takes effect if anything beside it lets it
PLACES = {"--port": "/dev/ttyUSB9", "--sim": None, "--golden": None}
SAMPLING = {"--temperature": "0.5", "--top-p": "0.5", "--top-k": "5", "--min-p": "0.1", "--repetition-penalty": "1.5",
            "--seed": "3"}
CONVERSION = {"--format": "q4", "--group": "32", "--embedding": "q4", "--seq-len": "16", "--kv": "k8v8"}
OTHERS = {"--upload": None, "--columns": "4",
          "--baud": "9600", "--max-baud": "115200", "--trace": None, "--tokenizer": "t.bin",
          "--template": "plain",
          "--calibrate": "text", "--budget": "6bits", "--repetition-window": "8", "--speculate": "1", "--prompt": "x",
          "--file": "f",
          "--prompt-ids": "1", "--steps": "9", "--ids": None, "--json": None, "--raw": None}
VALUES = SAMPLING | CONVERSION | OTHERS
#: refused whatever is beside them: what they need is missing in a plain --golden run of a checkpoint, or on a port
NEVER = {"--golden": {"--upload", "--columns",
                      "--baud", "--max-baud", "--trace", "--speculate", "--calibrate", "--budget",
                      "--embedding",
                      "--repetition-window"},
         "--sim": {"--baud", "--max-baud", "--calibrate", "--budget", "--embedding", "--repetition-window"},
         "--port": {"--upload", "--columns", "--calibrate", "--budget", "--embedding", "--repetition-window"}}
#: what an option gives to others that need it
HELPS = {"--format": {"--embedding", "--calibrate"}, "--repetition-penalty": {"--repetition-window"}}
EXCLUDE = [{"--prompt", "--file"}, {"--prompt", "--prompt-ids"}, {"--file", "--prompt-ids"}, {"--ids", "--json"},
           {"--raw", "--json"},
           {"--raw", "--ids"}]


PARSER = create_parser()


@pytest.fixture(autouse=True)
def named_files_are_there(tmp_path, monkeypatch):
    """What --calibrate and --file name: whether a file exists is told before anything is opened."""
    monkeypatch.chdir(tmp_path)
    for name in ("text", "f"):
        (tmp_path / name).write_text("a text")


def refused(capsys, *arguments):
    """The one line of a command that runs in this process."""
    assert cli.main([str(argument) for argument in arguments]) == 1
    output, errors = capsys.readouterr()
    assert not output and errors.count("\n") == 1
    return errors


def arguments(*names):
    values = VALUES | PLACES
    return [part for name in names for part in ([name] if values[name] is None else [name, values[name]])]


def is_refused(*given):
    """By the table, in one line."""
    try:
        options.check(PARSER.parse_args(["generate", *given]))
    except CombinationError as error:
        assert "\n" not in str(error)
        return True
    return False


@pytest.mark.parametrize("place", PLACES)
def test_all_pairs(files, place):
    """Beside a checkpoint: every option, and every two, are refused if and only if one of them does nothing."""
    base = [*arguments(place), "--model", str(files / "tiny.bin")]
    for a, b in itertools.combinations_with_replacement(VALUES, 2):
        idle = {name for name in (a, b) if name in NEVER[place]
                and not any(name in HELPS.get(other, ()) for other in (a, b))}
        expected = bool(idle) or {a, b} in EXCLUDE
        for given in ((a, b), (b, a)) if a != b else ((a,),):
            assert is_refused(*base, *arguments(*given)) == expected, (place, given)


def test_a_devices_own_model_is_not_converted():
    for name in VALUES:
        expected = name in NEVER["--port"] or name in CONVERSION
        assert is_refused("--port", "/dev/ttyUSB9", *arguments(name)) == expected, name
    for name in ("--baud", "--max-baud"):
        assert is_refused("--port", "socket://127.0.0.1:1", *arguments(name))


def test_one_place():
    for some in itertools.combinations(PLACES, 2):
        assert is_refused(*arguments(*some))
    assert not is_refused()                     # nobody said where: told by what opens it


def test_greedy_takes_no_other_choice(files):
    base = ["--golden", "--model", str(files / "tiny.bin"), "--temperature", "0"]
    for name, off in (("--top-p", "1"), ("--top-p", "0"), ("--top-k", "0"), ("--min-p", "0")):
        assert is_refused(*base, *arguments(name)) and not is_refused(*base, name, off)
    assert not is_refused(*base, "--seed", "7") and not is_refused(*base, "--repetition-penalty", "2")


@pytest.mark.parametrize("option, other, same", [("format", "q4", "q8"), ("group", 32, 64), ("embedding", "q4", "q8"),
                                                 ("seq_len", 16, 32), ("kv", "k8v8", "k16v16")])
def test_an_image_is_not_converted_again(files, capsys, option, other, same):
    """Neither on the command line nor in Python; what the image has anyway may be said."""
    name = "--" + option.replace("_", "-")
    line = refused(capsys, "generate", "--golden", "--model", files / "tiny.llm", "--prompt", "x", name, other)
    assert f"{name} {other} has no effect here" in line and f"which has {same}" in line
    for call in (lambda value: Model.load(files / "tiny.llm", **{option: value}),
                 lambda value: connect(golden=True, model=files / "tiny.llm", **{option: value})):
        call(same)
        with pytest.raises(CombinationError, match="has no effect here"):
            call(other)


def test_other_commands(files, capsys):
    text = files / "text"
    text.write_text("a text")
    for command in (["perplexity", "--model", files / "tiny.llm", "--text", text, "--kv", "k8v8"],
                    ["perplexity", "--model", files / "tiny.bin", "--text", text, "--budget", "6bits"],
                    ["compare", "--model", files / "tiny.bin", "--text", text, "--format", "q8", "--embedding", "q4"],
                    ["convert", files / "tiny.bin", "-o", files / "x.llm", "--embedding", "q4"],
                    ["load", "--port", "socket://127.0.0.1:1", "--model", files / "tiny.llm", "--seq-len", 5],
                    ["stats", "--port", "socket://127.0.0.1:1", "--baud", 9600],
                    ["info", files / "tiny.bin", "--json", "--raw"],
                    ["serve", "--golden", "--upload"], ["serve", "--golden", "--columns", "4"],
                    ["serve", "--golden", "--model", files / "tiny.llm", "--budget", "6bits"],
                    ["serve", "--port", "socket://127.0.0.1:1", "--port", "socket://127.0.0.1:2", "--copies", "2"],
                    ["chat", "--golden", "--upload"]):
        assert "has no effect here" in refused(capsys, *command)
    assert cli.main(["stats", "--port", "socket://127.0.0.1:1", "--max-baud", "9600"]) == 2
    assert cli.main(["perplexity", "--text", str(text), "--template", "plain"]) == 2


@pytest.mark.parametrize("arguments", [
    {"golden": True, "upload": True}, {"golden": True, "columns": 4}, {"sim": True, "columns": 3},
    {"sim": True, "columns": True}, {"golden": True, "baud": 9600}, {"port": "socket://127.0.0.1:1", "seq_len": 16},
    {"port": "socket://127.0.0.1:1", "max_baud": 9600}, {"port": "/dev/null", "upload": True},
    {"golden": True, "flash": True},
    {"port": "x", "golden": True}, {"golden": True, "seq_len": 2.5}, {"golden": True, "seq_len": True},
    {"golden": True, "format": b"q8"},
    {"golden": True, "sequence": 3}, {"port": "x", "sequence": 3}, {"golden": "yes"}, {"port": 7},
    {"golden": True, "model": 7}])
def test_python(arguments):
    with pytest.raises(HostError) as error:
        connect(**arguments)
    assert "\n" not in str(error.value)
    assert not ({"port", "golden"} <= set(arguments)) or str(error.value) == CHOOSE


def test_python_types_of_a_model(files):
    for name in ("tiny.bin", "tiny.llm"):
        for options_ in ({"seq_len": 2.5}, {"kv": 7}, {"group": "32"}, {"unknown": 1}, {"template": b"plain"}):
            with pytest.raises(TypeError):
                Model.load(files / name, **options_)
