"""Measures the board's serial line and flash in simulated time: ``python -m bench.uart`` writes
bench/results/uart.json.

LiteX's UART and SPI master and the firmware in the simulated SoC, the shipped client at the other end of a USB bridge
that is simulated bit by bit. A stub that computes nothing replaces the core, which has no part in these figures. The
model and the simulator are those of tests/soc/test_uart.py. About two minutes.
"""
import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import serial

import llama2_host.device.rate
import llama2_host.device.store
import llama2_host.device.upload
from bench import records
from llama2_host.checkpoint.write import pack_v0
from llama2_host.device.device import Device
from llama2_host.device.link import Link
from llama2_host.image.model import Model
from llama2_host.device.transport import DEFAULT_BAUD
from soc.sim.simulator import Simulator
from llama2_spec.protocol import ModelState
from targets import sim
from tests.firmware.scripted_core import ScriptedCore
from tests.host.generated import random_tensors
from tests.host.tiny import CONFIG, TOKENIZER

RESULT      = sim.ROOT/"bench"/"results"/"uart.json"
FLASH_BYTES = 16 << 20
PATIENCE_S  = 120.0    # simulated time is some hundred times slower than the client's
ASK_PS      = 10**9    # between looks at a store, of simulated time: its end is seen this much too late at most


def rate(count, start_ps, end_ps):
    """Bytes per second of simulated time."""
    return round(count/(end_ps - start_ps)*1e12)


def upload(board, model, device):
    start_ps = board.time_ps()
    llama2_host.device.upload.upload(device.link, bytes(model.data))
    return rate(len(model.data), start_ps, board.time_ps())


def simulated_sleep(board):
    """A clock for the client's waiting that goes as the board's does.

    In wall time the last wait lasts as long as the machine is busy, while the board has long been done: what a store
    took would grow with that.
    """
    def sleep(_):
        until_ps = board.time_ps() + ASK_PS
        while board.time_ps() < until_ps:
            time.sleep(0.002)
    return SimpleNamespace(sleep=sleep, monotonic=time.monotonic)


def store(board, model, device):
    with mock.patch.object(llama2_host.device.store, "time", simulated_sleep(board)):
        start_ps = board.time_ps()
        device.store()
        return rate(len(model.data), start_ps, board.time_ps())


def measure(folder: Path) -> dict:
    (folder/"tiny.bin").write_bytes(pack_v0(CONFIG, random_tensors(CONFIG)))
    (folder/"tokenizer.bin").write_bytes(TOKENIZER.pack())
    model = Model.load(folder/"tiny.bin", format="q4")
    core  = ScriptedCore(crcs=[model.header_crc, model.payload_crc], command_cycles=4)
    vsim  = sim.build(sim.ROOT/"build"/"uart", core=core, with_board_pins=True)
    flash = folder/"flash.bin"
    flash.write_bytes(b"\xff"*FLASH_BYTES)
    result = {"image_bytes": len(model.data), "clock_hz": sim.SYS_CLK_FREQ}
    with Simulator(vsim, flash=flash) as board:
        device = Device.open(board.url, baud=DEFAULT_BAUD, wait_s=10, hello_timeout_s=PATIENCE_S)
        result["baud"] = device.hurry()
        result["upload_bytes_per_s"] = upload(board, model, device)
        device.load(bytes(model.data))
        # The simulated chip erases and writes at once: this is what the firmware adds to a real one's time.
        result["flash_write_bytes_per_s"] = store(board, model, device)
        result["flash_compare_bytes_per_s"] = store(board, model, device)    # nothing is missing: it only reads
        device.close()
        result["violations"] = sum(board.violations().values())
    with Simulator(vsim, flash=flash) as board, Device.open(board.url, baud=DEFAULT_BAUD, wait_s=10,
                                                            hello_timeout_s=PATIENCE_S) as device:
        assert device.info.model_state == ModelState.READY and device.info.payload_crc == model.payload_crc
        result["power_up_to_ready_s"] = round(device.info.uptime/device.info.clock_hz, 3)
    return result


def main(argv=None):
    argparse.ArgumentParser(prog="python -m bench.uart", description=__doc__.splitlines()[0]).parse_args(argv)
    serial.protocol_handler_packages.append("tests.soc")
    llama2_host.device.rate.PROBE_S = llama2_host.device.upload.TIMEOUT_S = PATIENCE_S
    Link.request.__kwdefaults__.update(timeout_s=PATIENCE_S, tries=2)
    with tempfile.TemporaryDirectory(prefix="llama2-bench-") as folder:
        result = {"command": "python -m bench.uart", **measure(Path(folder))}
    records.write(RESULT, RESULT.stem, result, indent=2)
    print(json.dumps(result, indent=2))
    return 0

if __name__ == "__main__":
    sys.exit(main())
