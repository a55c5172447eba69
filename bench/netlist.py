"""Delays of a mapped ECP5 netlist before placement: which paths are long, and what they go through.

Cell delays are those of speed grade 6; a routing hop counts as much everywhere, so the figures rank paths and promise
no clock.
"""
import json
import re
import sys
from collections import Counter
from itertools import groupby
from pathlib import Path

#: ns. Ref: the delays that nextpnr reports for LFE5U-85F-6.
CLOCK_TO_OUT = {"TRELLIS_FF": 0.52, "DP16KD": 5.83}
LOGIC        = {"LUT4": 0.24, "TRELLIS_DPR16X4": 0.24, "PFUMX": 0.2, "L6MUX21": 0.2, "MULT18X18D": 3.93}
CARRY_IN, CARRY_ALONG, CARRY_OUT = 0.45, 0.07, 0.45
SETUP, HOP   = 0.2, 0.9
#: An MULT18X18D whose registers are used has no path through it: from the product's register or its factors', to
#: either.
PRODUCT_OUT, FACTORS_OUT, TO_PRODUCT = 0.74, 3.86, 3.49

SHORT = {"TRELLIS_FF": "ff", "LUT4": "lut", "CCU2C": "carry", "MULT18X18D": "mult", "DP16KD": "bram", "PFUMX": "mux",
         "L6MUX21": "mux", "TRELLIS_DPR16X4": "lutram"}
CLOCKS = ("CLK", "WCK", "CLKA", "CLKB")


def readable(name: str) -> str:
    """A register's name, without what the mapper appended."""
    name = re.sub(r"_(TRELLIS|LUT4|CCU2C|PFUMX|DP16KD|MULT18X18D|L6MUX).*", "", name)
    return re.sub(r"\[\d+\]$", "", name)


class Netlist:
    """A flat module of Yosys' JSON, mapped by ``synth_ecp5``."""
    def __init__(self, path: Path, top: str):
        module = json.loads(Path(path).read_text())["modules"][top]
        self.cells = module["cells"]
        self.names, self.driver, self._arrival, self._from = {}, {}, {}, {}
        for name, net in module["netnames"].items():
            for bit in net["bits"]:
                if bit not in self.names or len(name) < len(self.names[bit]):
                    self.names[bit] = name
        for name, cell in self.cells.items():
            for port, bit in self.pins(cell, "output"):
                self.driver[bit] = (name, port)
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 100_000))    # carry chains

    @staticmethod
    def pins(cell, direction):
        return [(port, bit) for port, bits in cell["connections"].items() if cell["port_directions"].get(port) ==
                direction
                for bit in bits if not isinstance(bit, str)]

    @staticmethod
    def _registered(cell):
        """(whether a multiplier's factors are, whether its product is) held in registers of its own."""
        return "REG_INPUTA_CLK" in cell["parameters"], "REG_OUTPUT_CLK" in cell["parameters"]

    def _clock_to_out(self, cell):
        """Clock-to-output delay in ns; None for a cell without a clock."""
        if cell["type"] == "MULT18X18D" and any(self._registered(cell)):
            return PRODUCT_OUT if self._registered(cell)[1] else FACTORS_OUT
        return CLOCK_TO_OUT.get(cell["type"])

    def _through(self, kind, into, out):
        """(routing, logic) in ns from pin ``into`` to pin ``out``; None if no path leads there."""
        if kind == "CCU2C":
            if out == "S0" and into in ("A1", "B1", "C1", "D1"):
                return None
            if into == "CIN":
                return 0, CARRY_ALONG if out == "COUT" else CARRY_OUT
            return HOP, CARRY_IN
        if kind == "TRELLIS_DPR16X4" and not into.startswith("RAD"):
            return None
        if kind == "MULT18X18D":
            return (1.5 * HOP, LOGIC[kind]) if re.fullmatch(r"[AB]\d+", into) else None
        if kind in ("PFUMX", "L6MUX21") and into not in ("C0", "SD"):
            return 0, LOGIC[kind]
        return HOP, LOGIC.get(kind, 0.24)

    def arrival(self, bit) -> float:
        """ns after the clock edge at which net ``bit`` settles."""
        if bit not in self._arrival:
            self._arrival[bit] = 0.0    # also ends a loop
            if bit in self.driver:
                name, out = self.driver[bit]
                kind = self.cells[name]["type"]
                clocked = self._clock_to_out(self.cells[name])
                if clocked is not None:
                    self._arrival[bit] = clocked
                else:
                    for into, source in self.pins(self.cells[name], "input"):
                        delays = self._through(kind, into, out)
                        if delays and self.arrival(source) + sum(delays) > self._arrival[bit]:
                            self._arrival[bit], self._from[bit] = self.arrival(source) + sum(delays), source
        return self._arrival[bit]

    def path(self, bit) -> tuple:
        """The start of the slowest path to net ``bit``, and the cells on it, as text."""
        kinds = []
        while True:
            name, _ = self.driver.get(bit, (None, None))
            if name:
                kinds.append(SHORT.get(self.cells[name]["type"], self.cells[name]["type"]))
            if bit not in self._from:
                break
            bit = self._from[bit]
        source = name if name is not None and self.cells[name]["type"] == "DP16KD" else self.names.get(bit, "?")
        runs = [(kind, len(list(run))) for kind, run in groupby(reversed(kinds))]
        return readable(source), " ".join(kind if n == 1 else f"{kind}*{n}" for kind, n in runs)

    def endpoints(self):
        """(cell, pin, net) of everything that a clock edge captures."""
        for name, cell in self.cells.items():
            if cell["type"] == "MULT18X18D" and any(self._registered(cell)):
                for pin, bit in self.pins(cell, "input"):
                    if re.fullmatch(r"[AB]\d+", pin):
                        yield name, pin, bit
            if cell["type"] in ("TRELLIS_FF", "DP16KD", "TRELLIS_DPR16X4"):
                for pin, bit in self.pins(cell, "input"):
                    if pin not in CLOCKS and not (cell["type"] == "TRELLIS_DPR16X4" and pin.startswith("RAD")):
                        yield name, pin, bit

    def register(self, name, pin) -> str:
        """The endpoint's name in the sources."""
        cell = self.cells[name]
        if cell["type"] == "TRELLIS_FF":
            return readable(self.names[cell["connections"]["Q"][0]]) + ("" if pin in ("DI", "M") else f" ({pin})")
        return f"{readable(name)} ({re.sub('[0-9]+$', '', pin)})"

    def estimate(self) -> list:
        """(ns, cell, pin, net) of all endpoints, slowest first."""
        found = []
        for name, pin, bit in self.endpoints():
            local = (self.cells[name]["type"], pin) == ("TRELLIS_FF", "DI") and bit in self.driver \
                and self.cells[self.driver[bit][0]]["type"] in ("LUT4", "CCU2C", "PFUMX", "L6MUX21")
            late = self.cells[name]["type"] == "MULT18X18D" and not self._registered(self.cells[name])[0]
            found.append((self.arrival(bit) + (0 if local else HOP) + (TO_PRODUCT if late else SETUP), name, pin, bit))
        return sorted(found, key=lambda item: -item[0])

    def worst(self, delays, count: int, per_source: int = 3) -> list:
        """Rows for the slowest ``count`` registers of ``delays`` (as of :meth:`estimate`), a register and its kin
        once."""
        rows, seen, sources = [], set(), Counter()
        for ns, name, pin, bit in delays:
            self.arrival(bit)
            source, cells = self.path(bit)
            to = self.register(name, pin)
            kin, origin = re.sub(r"\d+", "#", to), re.sub(r"\d+", "#", source)
            if kin in seen or sources[origin] >= per_source:
                continue
            seen.add(kin)
            sources[origin] += 1
            rows.append({"ns": round(ns, 2), "from": source, "to": to, "cells": cells})
            if len(rows) == count:
                break
        return rows
