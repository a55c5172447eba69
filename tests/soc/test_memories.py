"""Styles of memories: the rule, what Vivado takes of block RAM, and the CPU's and LiteX's memories."""
import re
from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from migen import run_simulation
from pythondata_cpu_vexriscv import data_location

from litex.soc.interconnect import wishbone

from soc import amaranth, memories
from soc.split_ram import SplitRAM, power_of_two_parts
from soc.vexriscv import place_memories


# Ref: AMD UG473: a RAMB36 is 512 x 72, 1K x 36, 2K x 18, 4K x 9, 8K x 4, 16K x 2 or 32K x 1; a RAMB18 half of that.
@pytest.mark.parametrize("width, depth, reads, expected", [
    (32, 7168, 1, 8), (32, 8192, 1, 8), (32, 5120, 1, 8), (32, 4096, 1, 4), (32, 1024, 1, 1), (32, 512, 1, 0.5),
    (9, 512, 1, 0.5),
    (384, 256, 1, 5.5), (128, 512, 1, 2), (256, 480, 1, 4), (72, 512, 1, 1), (73, 512, 1, 1.5), (32, 32, 2, 1),
    (8, 1024, 1, 0.5),
    (1, 32768, 1, 1), (1, 32769, 1, 2), (9, 4096, 1, 1), (10, 4096, 1, 1.5), (32, 65536, 1, 64)])
def test_block_rams_as_vivado_rounds(width, depth, reads, expected):
    assert memories.block_rams(width, depth, reads) == expected


@pytest.mark.parametrize("width, depth, synchronous, expected", [
    (32, 32, True, "distributed"), (128, 512, True, "block"), (4000, 4096, False, "distributed"),
    (6, 240, True, "distributed"),
    (32, 512, True, "block"), (22, 128, True, "distributed")])
def test_rule(width, depth, synchronous, expected):
    assert memories.style(width, depth, synchronous) == expected

# Amaranth -----------------------------------------------------------------------------------------

class Memories(wiring.Component):
    """One memory of each kind: large and small, read with a clock and without, a ROM, and one that says where it
    belongs."""
    def __init__(self):
        super().__init__({"address": In(9), "data": In(32), "en": In(1), **{name: Out(32) for name in "abcde"}})

    def elaborate(self, platform):
        m = Module()
        for name, depth, domain, attrs in (("a", 512, "sync", {}), ("b", 32, "sync", {}), ("c", 512, "comb", {}),
                                           ("d", 512, "sync", {}),
                                           ("e", 512, "sync", {"ram_style": "distributed"})):
            m.submodules[f"memory_{name}"] = store = memory.Memory(shape=32, depth=depth, init=range(depth),
                                                                   attrs=attrs)
            read = store.read_port(domain=domain)
            m.d.comb += [read.addr.eq(self.address), getattr(self, name).eq(read.data)]
            if name != "d":
                write = store.write_port()
                m.d.comb += [write.addr.eq(self.address), write.data.eq(self.data), write.en.eq(self.en)]
        return m


def test_amaranths_memories_get_a_style():
    text  = amaranth.verilog_file(Memories(), "memories").read_text()
    lines = {name: lines for lines, name in re.findall(r"((?:\(\* [^\n]*\n\s*)+)reg \[31:0\] memory_(\w)", text)}
    styles = {name: re.search(r'r.m_style = "\w+"', found)[0] for name, found in lines.items()}
    # e says where it belongs
    assert {name for name, found in lines.items() if memories.BY_RULE in found} == set("abcd")
    assert styles == {"a": 'ram_style = "block"', "b": 'ram_style = "distributed"', "c": 'ram_style = "distributed"',
                      "d": 'rom_style = "block"', "e": 'ram_style = "distributed"'}

# VexRiscv -----------------------------------------------------------------------------------------

def cpu(name="VexRiscv"):
    return Path(data_location, f"{name}.v").read_text()


def declared(text):
    """{memory: (style, width, depth)}, of memories of one name the last."""
    return {name: (style, int(width) + 1, int(depth) + 1) for style, width, name, depth in
            re.findall(r'(?:\(\* ram_style = "(\w+)" \*\) )?reg \[(\d+):0\] (\w+) \[0:(\d+)\]', text)}


def test_cpus_memories_are_placed():
    assert declared(place_memories(cpu())) == {
        "RegFilePlugin_regFile": ("distributed", 32, 32), "ways_0_tags": ("distributed", 22, 128),
        "ways_0_data": ("block", 32, 1024),
        "banks_0": ("block", 32, 1024)}


def test_cpus_byte_lanes_are_read_and_written_as_before():
    text = place_memories(cpu())
    data = "{_zz_ways_0_datasymbol_read_3, _zz_ways_0_datasymbol_read_2, " \
           "_zz_ways_0_datasymbol_read_1, _zz_ways_0_datasymbol_read}"
    assert text.count("ways_0_data[") == 5 and f"{data} <= ways_0_data[dataReadCmd_payload];" in text
    for lane in range(4):
        high, low = 8*lane + 7, 8*lane
        assert (f"if(dataWriteCmd_payload_mask[{lane}] && _zz_1) begin\n      "
                f"ways_0_data[dataWriteCmd_payload_address][{high}:{low}] <= "
                f"dataWriteCmd_payload_data[{high} : {low}];") in text


@pytest.mark.parametrize("name", [path.stem for path in sorted(Path(data_location).glob("*.v"))])
def test_every_variant_of_the_cpu_keeps_its_bits(name):
    """Nothing but declarations and the lanes' accesses changes, whatever the variant."""
    before, after = declared(cpu(name)), declared(place_memories(cpu(name)))
    assert all(style in memories.RAM_STYLES for style, _, _ in after.values())
    assert sum(width*depth for _, width, depth in before.values()) == sum(width*depth
                                                                          for _, width, depth in after.values())
    assert not re.search(r"\w+_symbol\d\[", place_memories(cpu(name)))

# RAM of any size ----------------------------------------------------------------------------------

def test_parts_are_powers_of_two():
    assert (power_of_two_parts(5632) == [4096, 1024, 512] and power_of_two_parts(8192) == [8192]
            and power_of_two_parts(3) == [2, 1])


@pytest.mark.parametrize("words", [24, 28, 31, 16])
def test_split_ram_holds_every_word(words):
    """Against LiteX's in one piece, access by access: contents, bytes, and the cycle of every acknowledgement."""
    contents = [0x1000 + i for i in range(words - 1)]
    buses    = [wishbone.Interface(data_width=32, address_width=32) for _ in range(2)]
    split    = SplitRAM(4*words, buses[0], contents)
    whole    = wishbone.SRAM(4*words, bus=buses[1], init=list(contents))
    split.submodules += whole

    def stimulus():
        seen = []
        for bus in buses:
            got = []
            for address in (*range(words), *reversed(range(words))):
                got.append((yield from bus.read(address)))
            for address in range(words):
                yield from bus.write(address, 0xdeadbeef + address, sel=1 << address % 4 | address % 2)
            for address in range(words):
                got.append((yield from bus.read(address)))
            seen.append(got)
        assert seen[0] == seen[1] and seen[0][:words - 1] == contents
    run_simulation(split, stimulus())


def test_split_rom_takes_contents_later_and_no_writes():
    bus   = wishbone.Interface(data_width=32, address_width=32)
    split = SplitRAM(4*12, bus, read_only=True)
    split.mem.init = list(range(100, 111))
    assert split.mem.depth == 12 and split.mem.init == [*range(100, 111), 0]

    def stimulus():
        yield from bus.write(3, 7)
        got = []
        for address in range(12):
            got.append((yield from bus.read(address)))
        assert got == [*range(100, 111), 0]
    run_simulation(split, stimulus())


def test_split_ram_refuses_bursts():
    with pytest.raises(ValueError, match="single accesses"):
        SplitRAM(48, wishbone.Interface(data_width=32, address_width=32, bursting=True))
