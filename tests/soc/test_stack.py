"""The firmware's stack: what its deepest chain of calls needs, against what the linker leaves for it."""
import re

import pytest

from bench import stack
from soc.base import FIRMWARE
from targets import sim

CODE = """
00000000 <main>:
   0:\t00000013          \taddi\tsp,sp,-32
   4:\t00000013          \tjal\tra,10 <one>
   8:\t00000013          \tjal\tra,20 <two>
   c:\t00000013          \tjalr\tzero,0(ra)

00000010 <one>:
  10:\t00000013          \taddi\tsp,sp,-16
  14:\t00000013          \tjal\tzero,20 <two>
  18:\t00000013          \tjal\tzero,14 <one+0x4>

00000020 <two>:
  20:\t00000013          \taddi\tsp,sp,-64
"""


def test_the_deepest_chain_counts():
    assert stack.deepest(stack.functions(CODE), "main") == (112, ["main", "one", "two"])


@pytest.mark.parametrize("text, what", [
    ("jalr\tra,0(a5)", "through a pointer"), ("sub\tsp,sp,a0", "variable size"), ("jal\tra,0 <main>", "recursion")])
def test_what_cannot_be_read_is_an_error(text, what):
    with pytest.raises(stack.StackError, match=what):
        stack.deepest(stack.functions(CODE + f"  24:\t00000013          \t{text}\n"), "main")


@pytest.mark.soc
def test_the_firmware_fits_the_stack_that_the_linker_promises():
    vsim = sim.build()
    found = stack.measure(vsim.parents[2]/"software"/"firmware"/"firmware.elf")
    promised = int(re.search(r"STACK_BYTES = (\d+);", (FIRMWARE/"linker.ld").read_text())[1])
    assert 500 < found["used_bytes"] <= promised <= found["room_bytes"]
