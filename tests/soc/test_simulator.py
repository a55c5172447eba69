"""The simulated SoC around the core: UART on TCP, DRAM image and ports, interrupt, and the simulator's life."""
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys

import numpy as np
import pytest
import serial

from soc.sim.simulator import Simulator, SimulatorError
from tests.waiting import ended, state, until

IMAGE_BYTES = 3 << 20
SCRATCH     = 64 << 20    # a DRAM address beyond the image
TIMEOUT_S   = 60


class Client:
    """Speaks the test firmware's requests, see firmware/main.c."""
    def __init__(self, url):
        self.port = serial.serial_for_url(url, timeout=TIMEOUT_S)

    def echo(self, data):
        self.port.write(b"e" + struct.pack("<I", len(data)) + data)

    def synchronise(self):
        """Read past what the firmware printed while it started."""
        self.echo(b"<sync>")
        assert self.port.read_until(b"<sync>").endswith(b"<sync>")
        return self

    def words(self, count):
        return struct.unpack(f"<{count}I", self.port.read(4*count))

    def sum(self, base, beats, target):
        self.port.write(b"s" + struct.pack("<III", base, beats, target))
        return self.words(2)

    def read(self, address):
        self.port.write(b"r" + struct.pack("<I", address))
        return self.words(1)[0]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    data = np.random.default_rng(5).integers(0, 256, IMAGE_BYTES, dtype=np.uint8)
    path = tmp_path_factory.mktemp("dram")/"image.bin"
    data.tofile(path)
    return path, data


@pytest.fixture(scope="module")
def simulator(stub_vsim, image):
    with Simulator(stub_vsim, image[0]) as sim:
        yield sim
        assert not sim.violations()


@pytest.fixture
def connect(simulator):
    """Makes clients of it; those that a test, even one that fails, has not closed would keep the next ones out."""
    clients = []

    def one():
        clients.append(Client(simulator.url))
        return clients[-1]
    yield one
    for client in clients:
        client.port.close()


@pytest.fixture
def client(connect):
    return connect().synchronise()


@contextlib.contextmanager
def standing_still(simulator):
    """What is done meanwhile happens between two cycles, however long this process waits for a processor."""
    os.kill(simulator.pid, signal.SIGSTOP)
    try:
        until(lambda: state(simulator.pid) == "T")
        yield
    finally:
        os.kill(simulator.pid, signal.SIGCONT)

# UART ---------------------------------------------------------------------------------------------


@pytest.mark.soc
@pytest.mark.parametrize("size", [1, 127, 4096, 30_000])
def test_burst_arrives_whole(client, size):
    data = np.random.default_rng(size).bytes(size)
    client.echo(data)
    assert client.port.read(size) == data


@pytest.mark.soc
def test_survives_client_that_leaves_in_the_middle(connect):
    leaver = connect().synchronise()
    leaver.echo(bytes(20_000))
    assert leaver.port.read(100) == bytes(100)
    leaver.port.close()
    connect().synchronise()


@pytest.mark.soc
def test_output_waits_for_a_client(simulator, connect):
    client = connect().synchronise()
    with standing_still(simulator):     # or it might answer the one that is about to go
        client.echo(b"kept for the next client")
        client.port.close()
    assert connect().port.read_until(b"client") == b"kept for the next client"


@pytest.mark.soc
def test_second_client_reads_end_of_file(simulator, client):
    host, port = simulator.url.removeprefix("socket://").split(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as second:
        assert second.recv(1) == b""
    client.synchronise()

# DRAM, registers, interrupt -----------------------------------------------------------------------


@pytest.mark.soc
@pytest.mark.parametrize("base, beats", [(0, 1), (5, 700), (IMAGE_BYTES//16 - 300, 300)])
def test_core_reads_image_and_writes_dram(client, image, base, beats):
    total = int(image[1][16*base:16*(base + beats)].view("<u4").sum(dtype=np.uint64)) & 0xffffffff
    got, _ = client.sum(base, beats, SCRATCH//16)
    assert got == total
    assert [client.read(SCRATCH + 4*word) for word in range(4)] == [total]*4


@pytest.mark.soc
def test_one_interrupt_per_result(client):
    first = client.sum(0, 1, SCRATCH//16)[1]
    assert [client.sum(0, 1, SCRATCH//16)[1] for _ in range(3)] == [first + 1, first + 2, first + 3]


@pytest.mark.soc
def test_cpu_reads_image(client, image):
    address = IMAGE_BYTES - 4
    assert client.read(address) == int(image[1][address:].view("<u4")[0])

# The simulator's life -----------------------------------------------------------------------------


@pytest.mark.soc
def test_unchanged_build_is_over_at_once(build_stub):
    vsim  = build_stub()
    built = {path: path.stat().st_mtime_ns for path in vsim.parent.iterdir()}
    assert build_stub() == vsim
    assert {path: path.stat().st_mtime_ns for path in vsim.parent.iterdir()} == built     # nothing was compiled


@pytest.mark.soc
def test_tells_simulated_time(simulator):
    first = simulator.time_ps()
    assert simulator.time_ps() > first > 0


@pytest.mark.soc
def test_missing_image_is_one_clear_error(stub_vsim, tmp_path):
    with pytest.raises(SimulatorError, match="cannot read the DRAM image .*: No such file"):
        Simulator(stub_vsim, tmp_path/"none").start()


@pytest.mark.soc
def test_taken_port_is_an_error(stub_vsim, simulator):
    with pytest.raises(SimulatorError, match="cannot listen on port"):
        Simulator(stub_vsim, port=int(simulator.url.rpartition(":")[2])).start()


@pytest.mark.soc
def test_dies_with_its_parent(stub_vsim):
    parent = subprocess.Popen([sys.executable, "-c", f"""
import time
from soc.sim.simulator import Simulator
print(Simulator({str(stub_vsim)!r}).start().pid, flush=True)
time.sleep(60)"""], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    until(lambda: ended(pid))


@pytest.mark.soc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_prints_its_port_and_ends_on_signal(stub_vsim, number):
    directory = stub_vsim.parents[2]
    process = subprocess.Popen([sys.executable, "targets/sim.py", "--run", "--output-dir", directory],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert line.startswith("listening on socket://127.0.0.1:")
    client = Client(line.split()[-1]).synchronise()
    process.send_signal(number)
    assert process.wait(TIMEOUT_S) == 0
    assert process.stdout.read() == process.stderr.read() == ""
    with pytest.raises(serial.SerialException):    # nobody simulates any more
        client.port.read(1)


def test_run_without_build_says_what_to_do(tmp_path):
    result = subprocess.run([sys.executable, "targets/sim.py", "--run", "--output-dir", tmp_path],
                            capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "--build" in result.stderr


def test_counts_violations_by_rule(tmp_path):
    sim = Simulator(tmp_path/"Vsim", log=tmp_path/"log")
    sim.log.write_text("[            1230000ps] tRRD violation on bank  3\n[            1240000ps] tRRD violation on "
                       "bank  0\n"
                       "[            2000000ps] tREFI violation (64ms period): 17\n")
    assert sim.violations() == {"tRRD violation": 2, "tREFI violation (64ms period)": 1}
