"""The decoder core alone on an ECP5-6, placed and routed: its clock and its ten worst paths: ``make timing``.

``--estimate`` ranks the paths of the mapped netlist instead, without placement: a minute or two.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from bench import records
from bench.netlist import Netlist
from bench.synthesis import run_yosys
from soc import floorplan, multipliers, open_tools
from soc.amaranth import verilog_file
from soc.configuration import PARAMETERS, create_core

RESULT      = Path(__file__).parent/"results"/"timing-core-ecp5.json"
OUT         = Path(__file__).parent.parent/"build"/"timing"
DEVICE      = {"part": "LFE5U-85F-6", "options": ["--85k", "--package", "CABGA756", "--speed", "6"]}
TARGET_MHZ  = 110
TOP         = "core_alone"


class CoreAlone(wiring.Component):
    """The core between registers: a chain feeds its inputs, a tree folds its outputs into one pin; nothing else is
    reset."""
    def __init__(self, core):
        self.core = core
        # identity of the Verilog in the cache
        self.parameters = tuple(core.__dict__.get(name) for name in PARAMETERS)
        super().__init__({"reset": In(1), "i": In(1), "o": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.core = self.core
        ports = [(member.flow, Value.cast(value)) for _, member, value in self.core.signature.flatten(self.core)]
        chain = Signal(sum(len(value) for flow, value in ports if flow is In))
        m.d.sync += chain.eq(Cat(self.i, chain))
        at = 0
        for flow, value in ports:
            if flow is In:
                m.d.comb += value.eq(chain[at:at + len(value)])
                at += len(value)
        bits = Cat(*(value for flow, value in ports if flow is Out))
        while True:
            level = Signal(len(bits), name=f"fold{len(bits)}")
            m.d.sync += level.eq(bits)
            if len(level) == 1:
                break
            bits = Cat(*(level[i:i + 4].xor() for i in range(0, len(level), 4)))
        m.d.comb += self.o.eq(level)
        return m


def synthesise(core, out: Path) -> Path:
    """Map ``core`` in its harness; returns the netlist."""
    out.mkdir(parents=True, exist_ok=True)
    netlist = out/f"{TOP}.json"
    run_yosys([f'read_verilog "{verilog_file(CoreAlone(core), TOP)}"', *open_tools.synth_ecp5(f"-abc9 -top {TOP}"),
               f"write_json {netlist.name}"], out/"yosys.log")
    multipliers.absorb(netlist)
    floorplan.place(netlist, whole=True)
    return netlist


def route(netlist: Path, out: Path, seed: int) -> dict:
    """Place and route in ``out``: the nextpnr from PyPI sees a /tmp of its own; returns its report."""
    open_tools.add_to_path()
    report = out/"report.json"
    report.unlink(missing_ok=True)
    with open(out/"nextpnr.log", "w") as log:
        subprocess.run(["nextpnr-ecp5", *DEVICE["options"], "--json", netlist.name, "--textcfg", "core.config",
                        "--freq", str(TARGET_MHZ), "--seed", str(seed), *open_tools.PLACE_AND_ROUTE,
                        "--lpf-allow-unconstrained",
                        "--timing-allow-fail", "--report", report.name, "--detailed-timing-report"],
                       cwd=out, stdout=log, stderr=log, check=True)
    return json.loads(report.read_text())


def routed_delays(report: dict, netlist: Netlist) -> list:
    """Endpoints of nextpnr's report with their routed delays, in the form of :meth:`Netlist.estimate`."""
    found = []
    for net in report["detailed_net_timings"]:
        for end in net["endpoints"]:
            cell = netlist.cells.get(end["cell"])
            pin  = end["port"]
            if cell and cell["type"] == "TRELLIS_FF" and pin in ("M", "DI"):
                pin = "DI"
            bits = cell["connections"].get(pin) if cell else None
            if bits and end["event"] == net["event"]:    # without paths from pins
                found.append((end["delay"][1], end["cell"], pin, bits[0]))
    return sorted(found, key=lambda item: -item[0])


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.timing", description=__doc__.splitlines()[0])
    parser.add_argument("--estimate", action="store_true", help="rank the paths before placement, write no result")
    parser.add_argument("--paths", type=int, default=None, help="how many paths (default: 10, 60 with --estimate)")
    parser.add_argument("--seed", type=int, default=3, help="of the placement (%(default)s)")
    args = parser.parse_args(argv)
    path = synthesise(create_core(multiplier_bits=18), OUT)
    netlist = Netlist(path, TOP)
    if args.estimate:
        rows = netlist.worst(netlist.estimate(), args.paths or 60)
    else:
        try:
            report = route(path, OUT, args.seed)
        except subprocess.CalledProcessError:
            log   = OUT/"nextpnr.log"
            error = next((line for line in log.read_text().splitlines() if line.startswith("ERROR")), "no message")
            print(f"{parser.prog}: nextpnr failed: {error}; see {log}, or try another --seed", file=sys.stderr)
            return 1
        fmax = min(clock["achieved"] for clock in report["fmax"].values())
        rows = netlist.worst(routed_delays(report, netlist), args.paths or 10)
        result = {"command": f"python -m bench.timing --seed {args.seed}", "device": DEVICE["part"],
                  "columns": PARAMETERS["columns"],
                  "fmax_mhz": round(fmax, 2), "target_mhz": TARGET_MHZ, "worst_paths": rows}
        records.write(RESULT, RESULT.stem, result)
        print(f"{fmax:.1f} MHz (target {TARGET_MHZ}), written to {RESULT}", file=sys.stderr)
    for row in rows:
        print(f"{row['ns']:6.2f} ns  {row['from']} -> {row['to']}  [{row['cells']}]")
    return 0

if __name__ == "__main__":
    sys.exit(main())
