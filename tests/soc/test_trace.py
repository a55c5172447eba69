"""A waveform holds the part of a simulation that was asked for, from or to a cycle or a token, and the core's names."""
import argparse
import struct
import subprocess
import sys

import pytest

from soc.sim.simulator import Simulator, SimulatorError
from soc.sim.trace import Moment, Trace, recorded_cycles
from targets import sim
from tests.soc.conftest import HERE
from tests.soc.test_simulator import Client

HEADER, HIERARCHY = 0, 6    # Ref: block types of the FST format; the hierarchy is one block of LZ4


def blocks(path):
    """Type and content of each block of an FST file."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        length = struct.unpack_from(">Q", data, at + 1)[0]
        yield data[at], data[at + 9:at + 1 + length]
        at += 1 + length


def expanded(data):
    """What one block of LZ4 stands for. Ref: LZ4 Block Format Description"""
    out, at = bytearray(), 0

    def length(count):
        nonlocal at
        more = count == 15
        while more:
            more = data[at] == 255
            count, at = count + data[at], at + 1
        return count
    while at < len(data):
        token, at = data[at], at + 1
        literals = length(token >> 4)
        out += data[at:at + literals]
        at += literals
        if at < len(data):
            offset, at = struct.unpack_from("<H", data, at)[0], at + 2
            for _ in range(length(token & 15) + 4):
                out.append(out[-offset])
    return bytes(out)


def times_ps(path):
    """First and last time in an FST file."""
    header = next(content for kind, content in blocks(path) if kind == HEADER)
    return struct.unpack_from(">QQ", header)


def names(path):
    """The text of its hierarchy: scopes and signals."""
    return b"".join(expanded(content[8:]) for kind, content in blocks(path) if kind == HIERARCHY)


@pytest.fixture(scope="module")
def vsim(build_around_stub):
    return build_around_stub("sim-stub-trace", firmware=HERE/"firmware", trace=True)


@pytest.mark.soc
@pytest.mark.parametrize("first, last", [(Moment(2000), Moment(2100)), (Moment(2, True), Moment(2, True)),
                                         (Moment(3, True), None)])
def test_holds_what_was_asked_for(vsim, tmp_path, first, last):
    path = tmp_path/"trace.fst"
    with Simulator(vsim, trace=Trace(path, first, last)) as simulator:
        client = Client(simulator.url).synchronise()
        for _ in range(3):
            client.sum(0, 5, 1 << 20)
        client.port.close()
    cycles = recorded_cycles(simulator.output(), sim.SYS_CLK_FREQ)
    assert tuple(ps//10_000 for ps in times_ps(path)) == cycles
    assert b"llama2_core" in names(path) and b"fsm_state" in names(path)
    if not first.is_token:
        assert cycles == (2000, 2100)
    else:
        assert 2000 < cycles[0] < cycles[1]


@pytest.mark.soc
def test_a_moment_that_never_comes_is_said(vsim, tmp_path):
    with Simulator(vsim, trace=Trace(tmp_path/"trace.fst", Moment(9, True))) as simulator:
        Client(simulator.url).synchronise().port.close()
    assert "[trace] nothing" in simulator.output() and recorded_cycles(simulator.output(), sim.SYS_CLK_FREQ) is None


@pytest.mark.soc
def test_a_simulator_without_waves_says_how_to_build_one(stub_vsim, tmp_path):
    with pytest.raises(SimulatorError, match="writes no waveforms: .*--trace"):
        Simulator(stub_vsim, trace=Trace(tmp_path/"trace.fst")).start()


@pytest.mark.parametrize("text, moment", [("0", Moment(0)), ("12000", Moment(12000)), ("token:3", Moment(3, True))])
def test_moments_are_read(text, moment):
    assert Moment.parse(text) == moment


@pytest.mark.parametrize("text", ["", "-1", "token:0", "token:", "3 tokens", "1e3"])
def test_other_moments_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a cycle"):
        Moment.parse(text)


@pytest.mark.parametrize("options", [["--run", "--trace-from", "5"], ["--build", "--trace", "--trace-to", "token:2"]])
def test_a_part_of_no_waveform_is_refused(options):
    done = subprocess.run([sys.executable, "targets/sim.py", *options], cwd=sim.ROOT, text=True, capture_output=True)
    assert done.returncode == 2 and "--run --trace" in done.stderr.splitlines()[-1]


@pytest.mark.soc
@pytest.mark.parametrize("options, code, says", [(["--trace-to", "400"], 0, "waveform of cycles 0 to 400 in "),
                                                 (["--trace-from", "token:9"], 1, "no waveform in ")])
def test_run_tells_what_was_recorded(vsim, tmp_path, options, code, says):
    command = ["targets/sim.py", "--run", "--output-dir", vsim.parents[2], "--trace", tmp_path/"a.fst", *options]
    run = subprocess.Popen([sys.executable, *command], cwd=sim.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           text=True)
    url = run.stdout.readline().split()[-1]
    Client(url).synchronise().port.close()      # it has simulated more than 400 cycles by then
    run.terminate()
    output, errors = run.communicate()
    assert run.returncode == code and errors.startswith(says) and errors.count("\n") == 1
