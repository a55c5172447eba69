"""What the client refuses or says at the edges of its checks, each in one line."""
import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from llama2_host import backend, cli, connection, version
from llama2_host.chat import keyboard, messages
from llama2_host.chat.template import PLAIN, Template, TemplateError, _typed
from llama2_host.commands import cache as cache_command
from llama2_host.commands import devices, options
from llama2_host.connection import DeviceBackend
from llama2_host.device import refusals, simulator, store, transport
from llama2_host.device.link import DeviceError, Link, LinkError, VersionError
from llama2_host.device.simulator import SimulatorError
from llama2_host.doctor import line, ports, steps
from llama2_host.doctor.report import Report, Verdict, ok, warning
from llama2_host.errors import HostError
from llama2_host.files import ModelError
from llama2_host.generation import OptionError, check_ids
from llama2_host.image import cache, conversion, description, discovery, fit
from llama2_host.progress import Progress
from llama2_host.quantisation import cores
from llama2_host.quantisation import recipe as recipes
from llama2_spec import protocol
from llama2_spec.frame import Frame
from llama2_spec.image import build
from llama2_spec.protocol import Opcode, Status, Subject
from tests.host.generated import random_tensors
from tests.host.tiny import CONFIG, TOKENIZER


@pytest.fixture
def nothing_plugged_in(monkeypatch):
    monkeypatch.setattr(ports, "ports", lambda: [])
    monkeypatch.delenv(ports.VARIABLE, raising=False)


def refused(capsys, *arguments):
    """The one line of a command in this process."""
    assert cli.main(list(arguments)) == 1
    output, errors = capsys.readouterr()
    assert not output and errors.count("\n") == 1
    return errors


# Commands -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command, what", [
    (("stats",), "stats needs --port URL"), (("load", "--model", "x.llm"), "load needs --port URL"),
    (("doctor",), "doctor needs to know whom to look at"), (("cache", "clear", "--json"), "leave one out"),
    (("chat", "--golden", "--steps", "0"), "--steps is at least 1, not 0")])
def test_commands_that_lack_something(capsys, nothing_plugged_in, command, what):
    assert what in refused(capsys, *command)


def test_an_image_is_not_converted(capsys, tmp_path):
    (tmp_path/"a.llm").write_bytes(build(CONFIG, random_tensors(CONFIG)))
    assert "is a model image already" in refused(capsys, "convert", str(tmp_path/"a.llm"), "-o", str(tmp_path/"b.llm"))


@pytest.mark.parametrize("rules, named", [(False, "/dev/ttyUSB1"), (True, None), (None, None)])
def test_devices_lists_ports_and_what_is_missing(capsys, monkeypatch, rules, named):
    monkeypatch.setattr(ports, "ports", lambda: [ports.Port("/dev/ttyUSB1", 0x403, 0x6010, role="serial line")])
    monkeypatch.setattr(ports, "chosen", lambda port: named)
    monkeypatch.setattr(ports, "rules_installed", lambda: rules)
    assert devices.run(SimpleNamespace(json=False)) == 0
    output, errors = capsys.readouterr()
    assert "/dev/ttyUSB1" in output and ("udev rules are not installed" in errors) == (rules is False)
    assert (f"{ports.VARIABLE} names" in errors) == (named is not None)


def test_what_an_entry_of_the_cache_holds(tmp_path):
    assert cache_command._holds(Path("device-0-0.head")) == "a device's tokenizer and template"
    (tmp_path/"a.llm").write_bytes(b"none")
    assert cache_command._holds(tmp_path/"a.llm").startswith("damaged")


def test_what_stands_behind_two_dashes_is_no_option():
    assert cli.create_parser()._joined(["generate", "--", "-i", "-x"]) == ["generate", "--", "-i", "-x"]


@pytest.mark.parametrize("name, raises", [("llama2_host.nowhere", True), ("jinja2", False)])
def test_a_missing_package_is_named_and_a_missing_module_of_ours_is_a_bug(capsys, monkeypatch, name, raises):
    def run(arguments):
        raise ModuleNotFoundError(name=name)
    monkeypatch.setattr(cli, "_run", run)
    if raises:
        with pytest.raises(ModuleNotFoundError):
            cli.main([])
    else:
        assert cli.main([]) == 1 and "the Python package jinja2 is missing" in capsys.readouterr().err


def test_a_model_without_a_tokenizer_has_no_texts():
    with pytest.raises(HostError, match="the model has no tokenizer"):
        options.require_tokenizer(SimpleNamespace(tokenizer=None))
    assert options.require_tokenizer(SimpleNamespace(tokenizer=TOKENIZER)) is TOKENIZER


# Where things are ---------------------------------------------------------------------------------


def test_the_version_of_a_clone_of_a_package_and_of_neither(monkeypatch, tmp_path):
    here = version.version()
    monkeypatch.setattr(version, "PYPROJECT", tmp_path/"pyproject.toml")
    assert version.version() == here, "the installed package's"
    (tmp_path/"pyproject.toml").write_text('name = "another"\nversion = "9"\n')
    assert version.version() == here
    monkeypatch.setattr(version, "DISTRIBUTION", "no-such-distribution")
    assert version.version() == "of an unknown version"


@pytest.mark.parametrize("module, find, what", [(simulator, simulator.find_root, simulator.TARGET),
                                                (discovery, discovery.default_model, discovery.DEFAULT_MODEL)])
def test_the_clone_is_where_the_package_lies_or_here(monkeypatch, tmp_path, module, find, what):
    assert (Path(__file__).parents[2]/what).exists() and find()
    monkeypatch.setattr(module, "__file__", str(tmp_path/"a"/"b"/"c"/"d"/"e"/"module.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises((SimulatorError, ModelError), match="was not found|is not in this installation"):
        find()
    (tmp_path/what).parent.mkdir(parents=True)
    (tmp_path/what).write_text("")
    assert find() in (tmp_path, tmp_path/what)


def test_folders_follow_the_environment(monkeypatch, tmp_path):
    for name in ("LLAMA2_HOST_CACHE", keyboard.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert cache.cache_directory().is_relative_to(tmp_path)
    assert keyboard.history_file() == tmp_path/"llama2-host"/"history"


def test_a_long_history_begins_anew(monkeypatch, tmp_path):
    monkeypatch.setattr(keyboard, "MAX_HISTORY_BYTES", 4)
    (tmp_path/"history").write_text("long ago")
    monkeypatch.setenv(keyboard.VARIABLE, str(tmp_path/"history"))
    keyboard._history(Progress.silent)
    assert (tmp_path/"history.old").read_text() == "long ago" and not (tmp_path/"history").read_text()


def test_a_cache_without_room_keeps_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "make_room", lambda size: False)
    assert cache.keep(tmp_path/"x", b"data") is None and not (tmp_path/"x").exists()


def test_cores_where_nobody_says_which(monkeypatch):
    assert cores.cores() >= 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores.cores() == 1


# Values -------------------------------------------------------------------------------------------


def test_a_prompt_has_room_and_ids_of_the_vocabulary():
    for ids, count, what in (([1] * 9, 8, "leaves no room"), ([CONFIG.vocab_size], 9, "outside the vocabulary"),
                             ([1] * (CONFIG.seq_len + 1), 9999, "the model's context")):
        with pytest.raises(HostError, match=what):
            backend.check_prompt(ids, count, CONFIG)
    with pytest.raises(OptionError, match="outside every vocabulary"):
        check_ids("ids", [1 << 40])


@pytest.mark.parametrize("value, right", [(["<s>", ""], {"bos_token": "<s>"}),
                                          ({"eos_token": "x"}, {"eos_token": "x"})])
def test_special_texts_of_a_template(value, right):
    assert _typed("special_texts", value) == right
    for name, wrong in (("special_texts", ["a"]), ("left_out", []), ("broken", "")):
        with pytest.raises(ValueError):
            _typed(name, wrong)


def test_a_template_that_came_broken_is_kept_and_told_when_it_is_used():
    assert Template.brought('{"jinja": "{% if %}"}').broken


def test_a_system_prompt_stands_first():
    said = [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]
    with pytest.raises(TemplateError, match="at the beginning only"):
        messages._written(said, PLAIN)


def test_an_unknown_kv_format_and_an_unknown_id():
    with pytest.raises(ModelError, match="--kv k4v4: choose from"):
        conversion.with_cache(CONFIG, None, "k4v4")
    assert description._token(TOKENIZER, None) == "none"


def test_a_model_that_fits_with_another_format_or_not_at_all():
    assert "use a smaller model, this one has" in fit._advice(CONFIG, 1 << 20, 1000)
    small = fit.payload_bytes(CONFIG, "q4") + fit.kv_bytes(CONFIG, fit.FEW_POSITIONS)
    assert "convert with --format q4 --embedding q4" in fit._advice(CONFIG, 1 << 20, small)


def test_a_long_text_is_heard_evenly(monkeypatch):
    monkeypatch.setattr(recipes.corpus, "sequences", lambda path, tokenizer, length: [[number] * 10
                                                                                       for number in range(20)])
    monkeypatch.setattr(recipes, "MAX_TOKENS", 50)
    heard = recipes._texts(Path("x"), TOKENIZER, CONFIG)
    assert [text[0] for text in heard] == [0, 4, 8, 12, 16]


# Devices ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code, what", [(errno.EACCES, "no permission to open"), (errno.EBUSY, "is busy"),
                                        (errno.EIO, "as a serial port"), (errno.ENOENT, "does not exist")])
def test_a_port_that_cannot_be_opened(monkeypatch, code, what):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))
    monkeypatch.setattr(transport.serial, "serial_for_url", fail)
    monkeypatch.setattr(transport.time, "sleep", lambda seconds: None)
    with pytest.raises(transport.TransportError, match=what):
        transport.Transport.open("/dev/ttyUSB7", wait_s=0.01)


def test_shapes_that_contradict_each_other():
    told = refusals.explain(Opcode.LOAD_END, Status.BAD_VALUE, protocol.Error(Subject.CONFIG, 0, 0, 0))
    assert "shapes contradict each other" in told


class Answers:
    """A link whose requests are answered in this order."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def request(self, opcode, payload=None, **_):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_a_flash_that_stands_still(monkeypatch):
    monkeypatch.setattr(store, "STUCK_S", -1.0)
    monkeypatch.setattr(store.time, "sleep", lambda seconds: None)
    running = protocol.Stored(protocol.StoreState.RUNNING, 10, 0, 1 << 20, 1 << 20, 0, 1)
    with pytest.raises(HostError, match="the flash has not moved"):
        store.store(Answers(running), 100)


def test_a_flash_that_holds_all_and_runs_on_is_waited_for(monkeypatch):
    """Until it says that it is done; one byte more than the image is not believed."""
    monkeypatch.setattr(store.time, "sleep", lambda seconds: None)
    at = lambda done, state: protocol.Stored(state, done, done, 1 << 20, 1 << 20, 0, 1)
    running, done = protocol.StoreState.RUNNING, protocol.StoreState.DONE
    begins = at(0, running), at(0, running)             # asked, then begun
    assert store.store(Answers(*begins, at(100, running), at(100, done)), 100).state == done
    with pytest.raises(HostError, match="101 of 100 bytes are in the flash"):
        store.store(Answers(*begins, at(101, running), at(100, done)), 100)


@pytest.fixture
def link():
    return Link(SimpleNamespace(name="here", has_rate=False))


@pytest.mark.parametrize("status, payload, what", [
    (Status.BAD_LENGTH, b"", "2 or older"), (Status.OK, b"\x09\0\0\0" + bytes(8), "speaks protocol 9"),
    (Status.BAD_VERSION, bytes(8) + b"\x07\0\0\0", "speaks protocol 7")])
def test_another_version_s_answer_to_hello(link, status, payload, what):
    with pytest.raises(VersionError, match=what):
        link.unpack_reply(Frame(Opcode.HELLO, 1, payload, status), protocol.Hello())


def test_a_frame_of_another_protocol_is_no_frame(link):
    link._receive(Frame(Opcode.HELLO, 1, b"").encode() + Frame(250, 1, b"").encode())
    assert (link.frames, link.damaged) == (1, 1)


def test_who_sends_without_end_and_no_answer(link, monkeypatch):
    monkeypatch.setattr(link, "send", lambda *_: None)

    def reply(timeout_s):
        link._received += 1 << 30
        return Frame(Opcode.STATS, 0, b"", 0)
    monkeypatch.setattr(link, "reply", reply)
    with pytest.raises(LinkError, match="sends without end and does not answer HELLO"):
        link.request(Opcode.HELLO)


class Divided:
    """A device that has room for so many slots."""

    def __init__(self, most, status=Status.NO_MEMORY):
        self.most, self.status, self.asked, self.info = most, status, [], SimpleNamespace(clock_hz=1)

    def divide(self, count):
        self.asked.append(count)
        if count > self.most:
            raise DeviceError(Opcode.SLOTS, self.status, protocol.Error(0, 0, 0))


def test_as_many_slots_as_there_is_room_for_and_at_least_one():
    device = Divided(2)
    DeviceBackend(device, None).divide(None, most=4)
    assert device.asked == [4, 3, 2]
    for device in (Divided(0), Divided(3, Status.BUSY)):
        with pytest.raises(DeviceError):
            DeviceBackend(device, None).divide(None, most=4)
    backend = DeviceBackend(device, None)
    backend.divide(None, most=0)                # nothing is asked for


def test_a_backend_ends_its_simulator(monkeypatch):
    ended = []
    device = SimpleNamespace(info=SimpleNamespace(clock_hz=1), close=lambda: ended.append("device"))

    class Simulated:
        def __exit__(self, *_):
            ended.append("simulator")
    with DeviceBackend(device, None, Simulated()):
        pass
    assert ended == ["device", "simulator"]


@pytest.mark.parametrize("upload", [False, True])
def test_a_simulator_has_the_model_preloaded_or_uploaded(monkeypatch, upload):
    did = []

    class Device:
        info = SimpleNamespace(clock_hz=1, seq_len=CONFIG.seq_len)

        def require_model(self):
            did.append("has it")
    model = SimpleNamespace(path="x.llm", config=CONFIG, data=b"")
    monkeypatch.setattr(connection, "Simulator", lambda path, progress, arguments: did.append((path, *arguments))
                        or SimpleNamespace(url="u", stop=lambda: None))
    monkeypatch.setattr(connection.Device, "open", lambda url, **_: Device())
    monkeypatch.setattr(connection.fit, "check", lambda *_: None)
    monkeypatch.setattr(connection, "put", lambda device, model, **_: did.append("put") or model)
    assert connection.simulate(model, upload=upload, columns=4 if upload else None).name == "simulator"
    assert did == ([(None, "--columns", "4"), "put"] if upload else [("x.llm",), "has it", "put"])


# The doctor ---------------------------------------------------------------------------------------


def step_of(name, *arguments):
    return steps.guarded(name, getattr(steps, name), *arguments)


@pytest.mark.parametrize("port, installed, verdict, text", [
    ("socket://x:1", None, Verdict.OK, "no serial port"),
    ("/dev/ttyUSB1", True, Verdict.OK, "udev rules are installed"),
    ("/dev/ttyUSB1", False, Verdict.OK, "are not installed"), ("/dev/ttyUSB0", None, Verdict.WARNING, "JTAG")])
def test_access_to_a_port(monkeypatch, port, installed, verdict, text):
    monkeypatch.setattr(ports, "obstacle", lambda port: None)
    monkeypatch.setattr(ports, "rules_installed", lambda: installed)
    monkeypatch.setattr(ports, "ports", lambda: [ports.Port("/dev/ttyUSB1", role="serial line"),
                                                 ports.Port("/dev/ttyUSB0", role="JTAG")])
    found = step_of("access", port)
    assert found.verdict == verdict and text in found.text
    monkeypatch.setattr(ports, "obstacle", lambda port: ("no port", "gone", "plug it in"))
    assert step_of("access", port).fault == "no port"


def test_a_user_who_may_and_one_on_another_system(monkeypatch):
    assert ports.obstacle("/dev/null") is None and ports.obstacle("COM3") is None
    assert "no device" in ports.obstacle(str(Path(__file__).resolve()))[1]
    monkeypatch.setattr(ports.sys, "platform", "win32")
    assert ports.rules_installed() is None


def board_of(**fields):
    return protocol.Board(**{name: 0 for name in protocol.Board.__dataclass_fields__} | fields)


def test_a_board_without_lanes_or_flash_has_nothing_to_look_at():
    for name in ("training", "flash"):
        assert step_of(name, None, board_of()).verdict == Verdict.SKIPPED


@pytest.mark.parametrize("size, verdict", [(0, Verdict.FAILED), (1 << 24, Verdict.OK)])
def test_a_flash_that_answers(size, verdict):
    device = SimpleNamespace(flash=lambda: SimpleNamespace(flash_bytes=size, room=size // 2))
    assert step_of("flash", device, board_of(flash_id=0x20ba18)).verdict == verdict


@pytest.mark.parametrize("crcs, cycles, fault", [((1, 2), 4096, "unsteady reads"), ((1, 1), 99999, "slow stream"),
                                                 ((1, 1), 4096, "")])
def test_a_stream(crcs, cycles, fault):
    answers = [protocol.Streamed(crc, cycles, 1024, 0, 1) for crc in crcs]
    device = SimpleNamespace(info=SimpleNamespace(dram_bytes=1 << 20, clock_hz=1), stream=lambda *_: answers.pop(0))
    assert (step_of("stream", device, board_of(pin_bytes=16), 16384).fault or "") == fault


@pytest.mark.parametrize("status, fault", [(Status.BAD_OPCODE, "old firmware"), (Status.BUSY, "refused")])
def test_a_step_that_the_device_refuses(status, fault):
    def flash():
        raise DeviceError(Opcode.STORE, status, protocol.Error(0, 0, 0))
    assert step_of("flash", SimpleNamespace(flash=flash), board_of(flash_id=1)).fault == fault


def test_a_line_that_loses_frames_and_a_rate_that_does_not_work(monkeypatch):
    device = SimpleNamespace(link=SimpleNamespace(transport=SimpleNamespace(has_rate=True)))
    for rate, verdict in ((line.Rate(115200, False, resent=3), Verdict.WARNING), (line.Rate(115200, True), Verdict.OK)):
        monkeypatch.setattr(line, "survey", lambda link, rounds, rate=rate: [rate])
        assert step_of("link", device, 1).verdict == verdict
    assert line.Rate(115200, False).text() == "115200 baud: does not work"


def test_the_last_line_of_a_report():
    report = Report("heading")
    report.add(ok("hello", "fine"))
    assert report.end() == "the device is in order"
    report.add(warning("stream", "slow", "slow stream"))
    assert report.end() == "the device is in order, but see stream"
