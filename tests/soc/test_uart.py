"""The board's UART, bit by bit: LiteX's PHY and the firmware in the simulated SoC, the shipped client at the other end.

Simulated time is about 200 times slower than the client's, so its time-outs are longer here, and a board's quick
dialogue takes seconds. With the stub core, which computes nothing, this is part of ``make test``; ``make uart`` repeats
it with the decoder core, which then checks the upload and gives golden's tokens.
"""
from dataclasses import replace

import pytest
import serial

import llama2_host.device.rate
import llama2_host.device.upload
from accel.core import Core
from llama2_host import connect
from llama2_host.checkpoint.write import pack_v0
from llama2_host.connection import DeviceBackend, put
from llama2_host.chat.conversation import Conversation
from llama2_host.device.device import Device
from llama2_host.errors import HostError
from llama2_host.generation import Sampling
from llama2_host.device.link import Link
from llama2_host.image.model import Model
from soc.sim.simulator import Simulator
from llama2_spec.protocol import LOAD_CHUNK, MAX_BAUD, Baud, ModelState, Opcode
from targets import sim
from tests import libc
from tests.firmware.scripted_core import ScriptedCore
from tests.host.generated import random_tensors
from tests.host.tiny import CONFIG, TOKENIZER

FIRST      = 115200
PATIENCE_S = 60.0     # for what must be answered
SILENCE_S  = 1.0      # for what must not
BREAK      = 5        # pieces that were sent when the cable is unplugged

FLASH_BYTES = 16 << 20
BITSTREAM   = bytes(range(256))*(sim.MODEL_OFFSET//256)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA2_HOST_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def simulated_time(monkeypatch):
    serial.protocol_handler_packages.append("tests.soc")
    monkeypatch.setattr(llama2_host.device.rate, "PROBE_S", PATIENCE_S)
    monkeypatch.setattr(llama2_host.device.upload, "TIMEOUT_S", PATIENCE_S)
    for method in (Link.request, Device.hello):
        monkeypatch.setattr(method, "__kwdefaults__", {"timeout_s": PATIENCE_S, "tries": 2})
    yield
    serial.protocol_handler_packages.remove("tests.soc")


@pytest.fixture(scope="module")
def model(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("model")
    (folder/"tiny.bin").write_bytes(pack_v0(CONFIG, random_tensors(CONFIG)))
    (folder/"tokenizer.bin").write_bytes(TOKENIZER.pack())
    return Model.load(folder/"tiny.bin", format="q4")


def build(model, with_core):
    core = Core(columns=sim.COLUMNS) if with_core else ScriptedCore(crcs=[model.header_crc, model.payload_crc],
                                                                    command_cycles=4)
    folder = sim.ROOT/"build"/("uart-core" if with_core else "uart")
    libc.share(folder)
    return sim.build(folder, core=core, with_board_pins=True)


@pytest.fixture(scope="module", params=[pytest.param(False, marks=pytest.mark.soc, id="stub"),
                                        pytest.param(True, marks=pytest.mark.uart, id="core")])
def board(request, model, tmp_path_factory):
    flash = tmp_path_factory.mktemp("flash")/"flash.bin"
    flash.write_bytes(BITSTREAM + b"\xff"*(FLASH_BYTES - len(BITSTREAM)))
    with Simulator(build(model, request.param), flash=flash) as simulator:
        simulator.has_core = request.param
        yield simulator
        assert not simulator.violations()


def unplug_after(device, pieces):
    """Close the port as soon as so many LOADs were sent."""
    send, count = device.link.send, 0

    def counted(opcode, sequence, payload=None):
        nonlocal count
        send(opcode, sequence, payload)
        count += opcode == Opcode.LOAD
        if count == pieces:
            device.link.transport.close()
    device.link.send = counted


def loads(device):
    """Count LOADs from now on."""
    send, offsets = device.link.send, []

    def counted(opcode, sequence, payload=None):
        if opcode == Opcode.LOAD:
            offsets.append(payload.offset)
        send(opcode, sequence, payload)
    device.link.send = counted
    return offsets


def assert_image(device, model):
    """Both ends of it are in DRAM; the stub core's CRCs say nothing, and all of it would take a minute."""
    for at in (0, len(model.data) - 1024):
        assert device.read(at, 1024) == bytes(model.data[at:at + 1024])


def answers(backend):
    """Ids of two turns of a chat; random weights must not end them."""
    conversation = Conversation(backend, backend.model.template)
    conversation.template = replace(conversation.template, stops=())
    return [[event.token for event in conversation.turn(text, max_new=8, sampling=Sampling(temperature=0))]
            for text in ("Hi", "So?")]


def test_hello_fast_rate_broken_upload_and_chat(board, model):
    # HELLO at 115200, then the fast rate.
    device = Device.open(board.url, baud=FIRST, wait_s=10, hello_timeout_s=PATIENCE_S)
    assert device.link.transport.baud == FIRST
    assert device.info.model_state == ModelState.NONE
    assert device.hurry() == MAX_BAUD == device.link.transport.baud

    # The cable is unplugged in the middle of the upload.
    unplug_after(device, BREAK)
    with pytest.raises(HostError, match="went away .*: is the cable plugged in"):
        device.load(bytes(model.data))

    # A new client begins at 115200, finds the device at its fast rate, and goes on with the upload.
    device = Device.open(board.url, baud=FIRST, hello_timeout_s=SILENCE_S)
    assert device.link.transport.baud == MAX_BAUD
    assert device.info.model_state == ModelState.LOADING
    offsets = loads(device)
    start_ps = board.time_ps()
    backend = DeviceBackend(device, put(device, model))
    seconds = (board.time_ps() - start_ps)/1e12
    assert 0 < offsets[0] <= BREAK*LOAD_CHUNK
    assert offsets == list(range(offsets[0], len(model.data), LOAD_CHUNK))    # nothing is lost at 3 Mbaud
    assert device.holds(header_crc=model.header_crc, payload_crc=model.payload_crc)
    print(f"{(len(model.data) - offsets[0])/seconds:.0f} bytes/s")
    assert_image(device, model)

    # Chat.
    golden_answers = (answers(connect(golden=True, model=model.path)) if board.has_core
                      else [list(range(1, 9)), list(range(9, 17))])
    assert answers(backend) == golden_answers

    # Into the flash; the bitstream's part stays as it is.
    assert device.store().written == len(model.data)
    content = board.flash.read_bytes()
    assert content[:sim.MODEL_OFFSET + len(model.data)] == BITSTREAM + bytes(model.data)

    # The client leaves the device at 115200.
    device.close()
    with Device.open(board.url, baud=FIRST, hello_timeout_s=PATIENCE_S) as device:
        assert device.link.transport.baud == FIRST
        assert device.info.model_state == ModelState.READY

    # Power fails; the board chats without an upload.
    assert not board.violations()
    board.stop()
    board.start()
    with Device.open(board.url, baud=FIRST, wait_s=10, hello_timeout_s=PATIENCE_S) as device:
        assert device.holds(header_crc=model.header_crc, payload_crc=model.payload_crc)
        assert device.hurry() == MAX_BAUD
        assert_image(device, model)
        backend = DeviceBackend(device, put(device, None))
        assert answers(backend) == golden_answers


def test_wrong_rate_is_one_error(board, monkeypatch):
    monkeypatch.setattr(llama2_host.device.rate, "RATES", ())
    with pytest.raises(HostError, match="does not answer HELLO: wrong port or baud rate") as error:
        Device.open(board.url, baud=1_000_000, wait_s=10, hello_timeout_s=SILENCE_S, hello_tries=1)
    assert "\n" not in str(error.value)


def test_unconfirmed_rate_is_left_again(board):
    with Device.open(board.url, baud=FIRST, wait_s=10, hello_timeout_s=PATIENCE_S) as device:
        device.link.request(Opcode.BAUD, Baud(MAX_BAUD, 2))
        board.wait_ps = board.time_ps() + int(2.5e9)
        while board.time_ps() < board.wait_ps:
            pass
        assert device.hello().version
