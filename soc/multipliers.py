"""Moves the registers around an ECP5's multipliers into them: ``python -m soc.multipliers NETLIST``.

Yosys maps a product to an MULT18X18D and leaves its registers to slices, though the block has its own at both factors
and at the product, and a path from slice to slice through a multiplier is the longest of many designs. This rewrites
the JSON netlist between synthesis and placement. A register moves if every bit of a factor (or of the product) comes
from (or goes to nothing but) plain flip-flops of one clock, with neither reset nor enable. Both factors move or
neither, as nextpnr has no timing for one; and only where nothing but wires lies before them: a sum that is multiplied
is better kept in a register beside its adder.
Ref: Lattice FPGA-TN-02205, ECP5 and ECP5-5G sysDSP Usage Guide.
"""
import argparse
import sys
from collections import Counter, defaultdict
from pathlib import Path

from soc.netlist import rewrite

FACTOR_BITS, PRODUCT_BITS = 18, 36
DATA = ("DI", "M")    # either data input of a flip-flop; Yosys knows the first alone


def _plain(cell) -> bool:
    """Returns whether this is a flip-flop that starts at 0 and loads at every rising edge, without reset or enable."""
    parameters, pins = cell["parameters"], cell["connections"]
    return (cell["type"] == "TRELLIS_FF" and parameters.get("REGSET", "RESET") == "RESET"
            and parameters.get("CLKMUX", "CLK") == "CLK" and pins["CLK"][0] not in ("0", "1", "x")
            and (parameters.get("CEMUX", "CE").strip() == "1" or pins.get("CE") == ["1"])
            and pins.get("LSR", ["0"])[0] in ("0", "x"))


class Module:
    """A flat module of Yosys' JSON: who drives a net and who reads it."""
    def __init__(self, module: dict):
        self.cells  = module["cells"]
        self.driver = {}
        self.users  = defaultdict(int)
        for name, cell in self.cells.items():
            for pin, bits in cell["connections"].items():
                for bit in bits:
                    if cell["port_directions"][pin] == "input":
                        self.users[bit] += 1
                    else:
                        self.driver[bit] = name
        for port in module["ports"].values():
            if port["direction"] != "input":
                for bit in port["bits"]:
                    self.users[bit] += 1

    def _data(self, name):
        """The net that flip-flop ``name`` takes."""
        pins = self.cells[name]["connections"]
        return next(pins[pin][0] for pin in DATA if pin in pins)

    def _from_register(self, bit) -> bool:
        cell = self.cells.get(self.driver.get(bit), {"type": None})
        return cell["type"] == "TRELLIS_FF" or cell["type"] == "MULT18X18D" and "REG_OUTPUT_CLK" in cell["parameters"]

    def _factors(self, cell):
        """{pin: flip-flop} for the bits of both factors, without constant zeros; None unless each bit is a plain
        register with a register before it."""
        found = {}
        for pin in (f"{factor}{i}" for factor in "AB" for i in range(FACTOR_BITS)):
            bit = cell["connections"].get(pin, ["0"])[0]
            if bit == "0":
                continue
            name = self.driver.get(bit)
            if name is None or not _plain(self.cells[name]) or not self._from_register(self._data(name)):
                return None
            found[pin] = name
        return found

    def _product(self, cell, reader):
        """{pin: flip-flop} for the product's bits that are read; None unless each of them goes to one plain register
        only."""
        found = {}
        for pin in (f"P{i}" for i in range(PRODUCT_BITS)):
            bit = cell["connections"].get(pin, ["x"])[0]
            if not self.users[bit]:
                continue
            if self.users[bit] != 1 or bit not in reader:
                return None
            found[pin] = reader[bit]
        return found

    def _clock(self, cell, found) -> bool:
        """Give the multiplier's registers the clock of those in ``found``, if they and the multiplier's present ones
        share one."""
        pins   = cell["connections"]
        clocks = {self.cells[name]["connections"]["CLK"][0] for name in found.values()} | set(pins.get("CLK0", []))
        if len(clocks) != 1:
            return False
        cell["parameters"]["GSR"] = "DISABLED"    # as those of slices are
        for pin, bit in (("CLK0", clocks.pop()), ("CE0", "1"), ("RST0", "0")):
            pins[pin] = [bit]
            cell["port_directions"][pin] = "input"
        return True

    def absorb(self) -> Counter:
        """Move every register that can be moved. Returns the number of multipliers, and of those that got the register
        of the ``product`` or those of the ``factors``."""
        reader = {self._data(name): name for name, cell in self.cells.items() if _plain(cell)}
        mine   = {name: cell for name, cell in self.cells.items()
                  if cell["type"] == "MULT18X18D" and not any(key.startswith("REG_") for key in cell["parameters"])}
        done   = Counter(multipliers=len(mine))
        for multiplier, cell in mine.items():
            found = self._product(cell, reader)
            if found and self._clock(cell, found):
                cell["parameters"]["REG_OUTPUT_CLK"] = "CLK0"
                for pin, name in found.items():
                    cell["connections"][pin] = self.cells.pop(name)["connections"]["Q"]
                    self.driver[cell["connections"][pin][0]] = multiplier
                done["product"] += 1
        for cell in mine.values():
            found = self._factors(cell)
            if found and self._clock(cell, found):
                cell["parameters"].update(REG_INPUTA_CLK="CLK0", REG_INPUTB_CLK="CLK0")
                for pin, name in found.items():
                    self.users[cell["connections"][pin][0]] -= 1
                    cell["connections"][pin] = [self._data(name)]
                    self.users[self._data(name)] += 1
                done["factors"] += 1
        for name in [name for name, cell in self.cells.items() if _plain(cell)
                     and not self.users[cell["connections"]["Q"][0]]]:
            del self.cells[name]
        return done


def absorb(netlist: Path) -> Counter:
    """Rewrite ``netlist`` (Yosys' JSON, after ``synth_ecp5``); the counts of :meth:`Module.absorb`, over all
    modules."""
    return rewrite(netlist, lambda design: sum((Module(module).absorb() for module in design["modules"].values()),
                                               Counter()))


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m soc.multipliers", description=__doc__.splitlines()[0])
    parser.add_argument("netlist", type=Path)
    done = absorb(parser.parse_args(argv).netlist)
    print(f"{done['multipliers']} multipliers: {done['product']} took the register of their product, "
          f"{done['factors']} those of their factors")
    return 0

if __name__ == "__main__":
    sys.exit(main())
