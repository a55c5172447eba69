"""The doctor against the firmware on this PC: what is in order passes, each fault has its name, and no model is
lost."""
import json
import re
import socket
import threading
from pathlib import Path

import pytest

from llama2_host import cli
from llama2_host.device.device import Device
from llama2_host.device.link import Link
from llama2_host.doctor import dram, known, line, ports, steps
from llama2_host.doctor.examination import Wishes, examine
from llama2_host.doctor.report import Verdict
from llama2_spec.protocol import Eye
from llama2_spec.simulation import DRAM_FAULTS
from tests.firmware import fake_device, library
from tests.firmware.images import small_image
from tests.firmware.line import LinePort, transport

ROOT = Path(__file__).parents[2]
ROW = 2048


class Bench:
    """The firmware behind a loopback port; its core's answers are taken for the right ones."""

    def __init__(self, firmware, monkeypatch):
        self.firmware, self.monkeypatch = firmware, monkeypatch
        for lane, window in enumerate([(1, 1, 5, 3), (0, 2, 6, 4)]):
            firmware.fake_lane(lane, *window)

    def power_up(self, image=b""):
        self.device = library.Device(self.firmware, image)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"socket://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, args=(self.listener,), daemon=True).start()
        return self

    def serve(self, listener):
        try:
            fake_device.serve(self.firmware, listener)
        except OSError:
            pass                                # it was closed

    def know(self):
        """What the fake core says to the known answer's prompt."""
        with Device.open(self.url) as device:
            device.load(known.known_image())
            ids, _, crc = known.ask_device(device)
        self.monkeypatch.setattr(known, "IDS", tuple(ids))
        self.monkeypatch.setattr(known, "LOGITS_CRC", crc)
        return self

    def examine(self, **wishes):
        return examine(self.url, Wishes(**wishes))


@pytest.fixture
def bench(firmware, monkeypatch):
    monkeypatch.setattr("serial.urlhandler.protocol_socket.time.sleep", lambda seconds: None)
    monkeypatch.setattr(known, "CYCLES", ())
    monkeypatch.setattr(steps, "CHECK_SHARE", 0.0)          # the fake core's counters stand still
    return Bench(firmware, monkeypatch)


def verdicts(report):
    return {step.name: step.verdict for step in report.steps}


def step(report, name):
    return next(one for one in report.steps if one.name == name)


def test_what_is_in_order_passes(bench):
    report = bench.power_up().know().examine()
    assert not report.failed and report.faults == [] and report.simulated
    assert {name for name, verdict in verdicts(report).items() if verdict != Verdict.OK} == {"flash"}
    assert step(report, "flash").verdict == Verdict.SKIPPED
    assert [lane["window"] for lane in step(report, "training").data["lanes"]] == [[1, 1, 5], [0, 2, 6]]
    json.dumps(report.to_json())


def test_a_stuck_lane_is_named(bench):
    bench.firmware.fake_lane_stuck(1)
    bench.firmware.fake_dram_fails()
    report = bench.power_up().examine()
    assert "stuck lane" in report.faults and "no DRAM" in report.faults
    assert step(report, "training").text == "lane 1: stuck lane"
    assert "byte lane 1" in step(report, "memory").text
    assert step(report, "known answer").verdict == Verdict.SKIPPED


def test_a_shifted_window_is_named(bench):
    bench.firmware.fake_lane(1, 1, 6, 7, 6)
    report = bench.power_up().examine()
    assert step(report, "training").fault == "shifted window"
    assert step(report, "memory").verdict == Verdict.OK


def eyes(chosen, *pictures):
    """Eyes of pictures such as ``x....xxx``; ``y`` is another number of errors than ``x``."""
    return [Eye(chosen[1], chosen[0], 192, 0, tuple({".": 0, "x": 1500, "y": 300}[mark] for mark in picture))
            for picture in pictures]


@pytest.mark.parametrize("chosen, pictures, fault", [
    ((0, 3), ("x.....xx", "xxxxxxxx"), None), ((1, 4), ("xxxxxxxx", "xx......"), None),
    ((0, 1), ("...xxxxx", "xxxxxxxx"), None),
    ((0, 3), ("xxx..xxx", "xxxxxxxx"), "narrow window"), ((1, 6), ("xxxxxxxx", "xxxxxx.."), "shifted window"),
    ((0, 0), ("..xxxxxx", "xxxxxxxx"), "shifted window"), ((0, 6), ("xxxxxx..", "xxxxxxxx"), "narrow window"),
    ((0, 7), ("x.....xx", "xxxxxxxx"), "wrong delay"), ((1, 3), ("x.....xx", "xxxxxxxx"), "wrong delay"),
    ((0, 0), ("xxxxxxxx", "xxxxxxxx"), "stuck lane"), ((0, 0), ("xyxyxxyx", "xxxxyxxx"), "no window")])
def test_windows_have_names(chosen, pictures, fault):
    found = dram.judge_lane(1, 2, eyes(chosen, *pictures))
    assert found.fault == fault and found.bits == 192 * 16
    assert (fault or "trained to") in found.text()


def test_a_picture_marks_the_choice():
    assert (dram.judge_lane(0, 2, eyes((0, 3), "x.....xx", "xxxxxxxx")).picture() ==
            ["  bitslip 0: x..[.]..xx", "  bitslip 1: xxxxxxxx"])


@pytest.mark.parametrize("lanes, masks", [(1, [0xffffffff]), (2, [0x00ff00ff, 0xff00ff00]),
                                          (4, [0xff, 0xff00, 0xff0000, 0xff000000])])
def test_lanes_are_bytes_in_turn(lanes, masks):
    assert [dram.lane_mask(lane, lanes) for lane in range(lanes)] == masks
    assert [dram.wrong_lanes(mask, lanes) for mask in masks] == [[lane] for lane in range(lanes)]


def test_one_bad_row_is_named_with_its_place(bench):
    bench.firmware.fake_bad_row(1000 * ROW, 0x10000)
    report = bench.power_up().examine()
    assert report.faults[0] == "bad row"
    assert "bank 0, row 125" in step(report, "memory").text and "byte lane 0" in step(report, "memory").text


def test_a_wrong_answer_is_told(bench):
    report = bench.power_up().examine()         # the fake core computes something else
    assert step(report, "known answer").fault == "wrong answer" and report.failed


def test_a_model_is_kept_unless_forced(bench):
    image = small_image()
    bench.power_up(image).know()
    bench.listener.close()
    bench.power_up(image)
    report = bench.examine()
    assert (step(report, "known answer").verdict == Verdict.SKIPPED
            and "a small model" in step(report, "known answer").text)
    with Device.open(bench.url) as device:
        assert (device.info.name == "a small model" and device.read(0, len(image) // 4 * 4) ==
                image[:len(image) // 4 * 4])
    assert step(bench.examine(force=True), "known answer").verdict == Verdict.OK


def test_command_prints_what_it_found_and_fails(bench, capsys):
    bench.firmware.fake_lane_stuck(1)
    bench.firmware.fake_dram_fails()
    bench.power_up()
    assert cli.main(["doctor", "--port", bench.url, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False and told["simulated"] and "stuck lane" in told["faults"]
    assert cli.main(["doctor", "--port", bench.url, "--memory", "64KiB"]) == 1
    told = capsys.readouterr().out
    assert "lane 1: stuck lane" in told and "simulated" in told.splitlines()[-1]


def test_nobody_there_is_one_step(capsys):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert cli.main(["doctor", "--port", f"socket://127.0.0.1:{port}"]) == 1
    assert "nothing listens" in capsys.readouterr().out


@pytest.mark.parametrize("options, said", [(["--dram-fault", "row"], "add --sim"),
                                           (["--sim", "--force"], "nobody's model"),
                                           (["--memory", "3 fishes"], "expected a size"),
                                           (["--memory", "1KiB"], "4KiB or more")])
def test_what_cannot_be_is_refused(options, said, capsys):
    more = [] if "--sim" in options else ["--port", "socket://127.0.0.1:1"]
    assert cli.main(["doctor", *more, *options]) == 1
    assert said in capsys.readouterr().err


# The line -----------------------------------------------------------------------------------------

@pytest.fixture
def short_timeouts(monkeypatch):
    import llama2_host.device.rate as rate
    for name, value in (("CONFIRM_S", 0.1), ("PROBE_S", 0.03), ("RESTORE_S", 0.03)):
        monkeypatch.setattr(rate, name, value)
    monkeypatch.setattr(rate._find, "__defaults__", (0.3,))


def test_rates_that_do_not_work_are_told(firmware, short_timeouts):
    port = LinePort(library.Device(firmware), able=(115200, 1_000_000, 2_000_000),
                    carries=lambda rate: rate != 2_000_000)
    found = {one.baud: one for one in line.survey(Link(transport(port)), rounds=2)}
    assert {baud for baud, one in found.items() if one.works} == {115200, 1_000_000}
    assert not found[2_000_000].works and not found[3_000_000].works
    assert port.baudrate == 115200


def test_damaged_frames_are_counted(firmware):
    port = LinePort(library.Device(firmware))
    count = 0

    def damage(data):
        nonlocal count
        count += len(data) > 900
        return data[:500] + bytes([data[500] ^ 1]) + data[501:] if len(data) > 900 and count == 2 else data
    port.lose = damage
    link = Link(transport(port))
    found = line.measure(link, 115200, rounds=4)
    assert found.damaged_there == 1 and found.resent == 1 and found.frames == 8


def test_the_simulated_dram_knows_the_doctor_s_faults():
    text = "".join((ROOT / "soc" / "sim" / name).read_text() for name in ("dram_lanes.v", "dram_bank.v"))
    assert set(re.findall(r'fault == "(\w+)"', text)) == set(DRAM_FAULTS)


# Ports --------------------------------------------------------------------------------------------

class Found:
    def __init__(self, device, vid=None, pid=None, serial_number=None, location=None, product=None):
        self.device, self.vid, self.pid = device, vid, pid
        self.serial_number, self.location, self.product = serial_number, location, product


ARTY = [Found("/dev/ttyUSB0", 0x403, 0x6010, "210319A", "1-2:1.0"),
        Found("/dev/ttyUSB1", 0x403, 0x6010, "210319A", "1-2:1.1")]


def test_the_second_channel_of_an_arty_is_its_serial_line():
    found = ports.ports([*reversed(ARTY), Found("/dev/ttyS0")])
    assert [(port.device, port.role) for port in found] == [("/dev/ttyS0", "unknown"), ("/dev/ttyUSB0", "JTAG"),
                                                            ("/dev/ttyUSB1", "serial line")]
    assert [port.device for port in ports.candidates(found)] == ["/dev/ttyUSB1"]


def test_channels_are_counted_where_the_system_does_not_number_them():
    found = ports.ports([Found("COM5", 0x403, 0x6010, "A"), Found("COM4", 0x403, 0x6010, "A"),
                         Found("COM11", 0x403, 0x6010, "B")])
    assert [(port.device, port.role) for port in found] == [("COM4", "JTAG"), ("COM5", "serial line"),
                                                            ("COM11", "JTAG")]


def test_one_board_is_used_and_several_are_listed():
    other = [Found("/dev/ttyUSB2", 0x403, 0x6010, "X", "1-3:1.0"), Found("/dev/ttyUSB3", 0x403, 0x6010, "X", "1-3:1.1")]
    found = ports.ports([*ARTY, *other])
    assert ports.discover(lambda device: device == "/dev/ttyUSB3", found) == "/dev/ttyUSB3"
    with pytest.raises(steps.HostError, match="several boards.*ttyUSB1 .serial number 210319A.*ttyUSB3.*--port"):
        ports.discover(lambda device: True, found)
    with pytest.raises(steps.HostError, match="no board answers at /dev/ttyUSB1, /dev/ttyUSB3.*doctor"):
        ports.discover(lambda device: False, found)
    with pytest.raises(steps.HostError, match="--sim"):
        ports.discover(lambda device: True, [])


def test_environment_names_the_port(bench, monkeypatch, capsys):
    bench.power_up(small_image())
    monkeypatch.setenv(ports.VARIABLE, bench.url)
    assert cli.main(["stats"]) == 0
    assert "a small model" in capsys.readouterr().out
    assert cli.main(["devices", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chosen"] == bench.url


def test_the_answering_board_is_found(bench, monkeypatch, capsys):
    bench.power_up(small_image())
    monkeypatch.delenv(ports.VARIABLE, raising=False)
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: ARTY)
    monkeypatch.setattr("llama2_host.commands.options.Transport.open", lambda device, **_: open_(bench.url))
    assert cli.main(["stats"]) == 0
    assert "using /dev/ttyUSB1" in capsys.readouterr().err


def open_(url):
    import serial
    from llama2_host.device.transport import Transport
    return Transport(serial.serial_for_url(url, timeout=0), url)


def test_a_port_without_permission_says_what_to_do(monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    fault, text, advice = ports.obstacle("/dev/null")
    assert fault == "no permission" and "udevadm" in advice and ports.RULES in advice


def test_a_port_that_is_no_device_is_told(tmp_path):
    (tmp_path / "port").write_text("")
    assert ports.obstacle(str(tmp_path / "port"))[0] == "no port"
    assert ports.obstacle(str(tmp_path / "none"))[0] == "no port"
    assert ports.obstacle("socket://127.0.0.1:1") is None and ports.obstacle("COM3") is None


def test_the_rules_name_both_boards_chip():
    text = ports.rules_file().read_text()
    assert "0403" in text and "6010" in text and 'ENV{ID_USB_INTERFACE_NUM}=="01"' in text
