"""Measures how fast DRAM streams: ``python -m bench.stream`` times sequential reads in the simulated SoC, in % of 16
bytes a cycle.

The whole core first: a CRC over the weights as the firmware checks them (no arithmetic to speak of, the CPU polls),
then the classifier's matrix in decoded tokens (compute behind the stream). Then the core's reader alone, under other
settings of the DRAM controller and of the reader, each in a build of its own (``--variants``).
"""
import argparse
import struct
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import serial
from litedram.core.controller import ControllerSettings
from litedram.modules import MT41K128M16

import soc.base
from bench import records, shapes
from bench.session import session
from bench.stream_core import StreamCore
from llama2_host.generation import Options, Sampling
from soc.sim.simulator import Simulator
from llama2_spec.registers import Counter, Phase
from targets import sim

FIRMWARE  = sim.ROOT/"tests"/"soc"/"firmware"    # its request 's' hands a segment to whatever core there is
BEATS     = (2 << 20)//16
TIMEOUT_S = 120

#: name: (what it is, controller settings, parameters of the reader, another speed grade)
VARIANTS = {
    "shipped": ("as shipped: refreshes postponed by 8, two ports in order", {}, {}, {}),
    "postpone1": ("every refresh at its time", {"refresh_postponing": 1}, {}, {}),
    "postpone4": ("refreshes postponed by 4", {"refresh_postponing": 4}, {}, {}),
    "grade": ("the module's default speed grade: tRFC doubled", {}, {}, {"speedgrade": None}),
    "oneport": ("one port", {}, {"row_bits": 23}, {}),
    "oneport-align": ("one port, banks change every 64 KiB", {"bank_byte_alignment": 1 << 16}, {"row_bits": 23}, {}),
    "ahead8": ("the next row started 8 beats before the end", {}, {"ahead": 8}, {}),
    "ahead24": ("the next row started 24 beats before the end", {}, {"ahead": 24}, {}),
    "depth16": ("16 reads outstanding per port", {}, {"depth": 16, "ahead": 8}, {}),
    "buffers16": ("command buffers of 16", {"cmd_buffer_depth": 16}, {}, {}),
    "no-auto-precharge": ("no auto-precharge", {"with_auto_precharge": False}, {}, {}),
    "read-time": ("read_time 128", {"read_time": 128}, {}, {}),
    "no-refresh": ("no refresh: what the bus alone would give", {"with_refresh": False}, {}, {}),
}


def row(name, what, beats, cycles, violations, **more):
    return {"name": name, "what": what, "beats": beats, "cycles": cycles, "percent": 100*beats/cycles,
            "dram_violations": violations, **more}


def counted(stats, phase):
    """Beats and cycles of a phase."""
    return tuple(stats.counters[phase*len(Counter) + counter] for counter in (Counter.BEATS, Counter.CYCLES))


def whole_core(shape="stories15M", format="q8"):
    """The shipped SoC: the boot's CRC, then the classifier over three tokens."""
    path = shapes.random_image(shape, format)
    with session(sim.build(), path, path) as (simulator, device):
        crc = counted(device.device.stats(), Phase.OTHER)
        device.device.reset()
        list(device.generate([1], Options(0, 3, Sampling(temperature=0), stops=())))
        classifier = counted(device.device.stats(), Phase.CLASSIFY)
        violations = sum(simulator.violations().values())
    return [row("core-crc", f"the whole core, CRC of a {shape} image", *crc, violations),
            row("core-classifier", f"the whole core, {shape}'s classifier in {format}", *classifier, violations)]


def variant(name):
    """The reader alone under the settings of ``name``."""
    what, controller, reader, module = VARIANTS[name]
    settings = mock.patch.object(soc.base, "ControllerSettings",
                                 lambda **shipped: ControllerSettings(**{**shipped, **controller}))
    chip = mock.patch.object(sim, "MT41K128M16", lambda *args, **shipped: MT41K128M16(*args, **{**shipped, **module}))
    with settings, chip:
        vsim = sim.build(sim.ROOT/"build"/"stream"/name, core=StreamCore(**reader), firmware=FIRMWARE,
                         soc_options={"with_timer": True})    # LiteX's libraries ask for it
    with tempfile.TemporaryDirectory() as temporary:
        image = Path(temporary)/"dram"
        np.random.default_rng(1).integers(0, 256, 16*BEATS, np.uint8).tofile(image)
        with Simulator(vsim, image) as simulator:
            port = serial.serial_for_url(simulator.url, timeout=TIMEOUT_S)
            port.write(b"e" + struct.pack("<I", 4) + b"sync")
            port.read_until(b"sync")                     # past what liblitedram printed
            port.write(b"s" + struct.pack("<III", 0, BEATS, 0))
            reply = port.read(8)
            port.close()
            violations = sum(simulator.violations().values())
    if len(reply) != 8:
        raise SystemExit(f"bench.stream: {name}: no answer within {TIMEOUT_S} s")
    return row(name, what, BEATS, struct.unpack("<I", reply[:4])[0], violations, controller=controller, reader=reader,
               module=module)


def main():
    parser = argparse.ArgumentParser(prog="python -m bench.stream", description=__doc__)
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=["shipped"], metavar="NAME",
                        help=f"settings to try: {', '.join(VARIANTS)}")
    parser.add_argument("--no-core", action="store_true", help="leave out the whole core")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for measured in [*([whole_core] if not args.no_core else []),
                     *(lambda name=name: [variant(name)] for name in args.variants)]:
        for result in measured():
            rows.append(result)
            print(f"{result['name']:18} {result['percent']:6.2f} % of 16 bytes/cycle ({result['beats']:,} beats in "
                  f"{result['cycles']:,} cycles), {result['dram_violations']} violations: {result['what']}", flush=True)
    if args.json:
        records.write(args.json, "stream", {"command": "python -m bench.stream --variants " + " ".join(args.variants),
                                            "rows": rows})


if __name__ == "__main__":
    main()
