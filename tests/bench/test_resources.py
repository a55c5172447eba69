"""Counting cells, and the table in the documents."""
import json

import pytest

from bench import memories, resource_tables, resources
from bench.synthesis import cost, run_yosys, synthesise

ADDER = """
module \\llama2_core.adder (input clk, input [15:0] a, input [15:0] b, output reg [15:0] o);
    always @(posedge clk) o <= a + b;
endmodule
module \\llama2_core.product (input clk, input signed [15:0] a, input signed [15:0] b, output reg signed [31:0] o);
    always @(posedge clk) o <= a * b;
endmodule
module llama2_core (input clk, input [15:0] a, input [15:0] b, output [15:0] s, output [31:0] p);
    \\llama2_core.adder adder (.clk(clk), .a(a), .b(b), .o(s));
    \\llama2_core.product product (.clk(clk), .a(a), .b(b), .o(p));
endmodule
module top (input clk, input [15:0] a, input [15:0] b, output [15:0] s, output reg [31:0] p);
    wire [31:0] q;
    llama2_core core (.clk(clk), .a(a), .b(b), .s(s), .p(q));
    reg [31:0] memory [0:1023];
    always @(posedge clk) begin memory[a[9:0]] <= q; p <= memory[b[9:0]]; end
endmodule
"""


@pytest.mark.parametrize("family, ff", [("xc7", 16), ("ecp5", 16)])
def test_counts_by_unit(tmp_path, family, ff):
    source = tmp_path/"top.v"
    source.write_text(ADDER)
    units = {name: cost(cells) for name, cells in synthesise([source], "top", family, tmp_path/"out", tmp_path).items()}
    assert units["adder"]["ff"] == ff and units["adder"]["lut"] >= 16 and units["adder"]["dsp"] == 0
    assert units["product"]["dsp"] == 1 and units["soc"]["dsp"] == 0
    assert units["soc"]["bram36"] == 1 and units["adder"]["bram36"] == 0


def test_memory_cells_are_counted_as_lookup_tables():
    assert cost({"RAM64M": 3, "LUT6": 1, "LUT1": 1})["lut"] == 14
    assert cost({"TRELLIS_DPR16X4": 2, "CCU2C": 5})["lut"] == 18


def test_joints_are_mapped_with_the_core(tmp_path):
    source = tmp_path/"top.v"
    source.write_text(ADDER.replace("llama2_core.adder", "llama2_core.router"))
    units = synthesise([source], "top", "xc7", tmp_path/"out", tmp_path)
    assert units.keys() == {"soc", "product", "core, between units"}
    assert cost(units["core, between units"])["lut"] >= 16


def test_every_unit_has_a_budget_and_keeps_it():
    units, allowed = json.loads(resources.RESULT.read_text())[resources.BUDGETED]["units"], resources.budgets()
    assert units.keys() - allowed.keys() == {"soc", "to_quantiser"} and not allowed.keys() - units.keys()
    assert resources.over_budget(units, allowed) == []


def test_a_unit_above_its_budget_is_told():
    assert resources.over_budget({"rope": {"lut": 227}, "kv": {"lut": 343}}, {"rope": 226, "kv": 343}) == [
        "rope takes 227 look-up tables, its budget is 226"]


def test_failing_yosys_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="yosys failed"):
        run_yosys(["read_verilog no-such-file.v"], tmp_path/"yosys.log")


def test_the_tables_hold_what_was_measured():
    text = resource_tables.boards()
    for name, result in json.loads(resources.RESULT.read_text()).items():
        assert f"**{name}** ({result['device']})" in text and f"| **all** | {result['lut']:,} |" in text


@pytest.mark.parametrize("name", resources.TARGETS)
def test_totals_are_the_sums_of_the_units(name):
    result = json.loads(resources.RESULT.read_text())[name]
    for kind in resources.KINDS:
        assert result[kind] == sum(unit[kind] for unit in result["units"].values()) and result[f"limit_{kind}"] > 0


def test_smallest_board_has_room():
    """What was recorded: block RAM as Vivado takes it, look-up tables with some left for a placer, multipliers."""
    result = json.loads(resources.RESULT.read_text())["arty-a7-35"]
    assert result["bram36"] <= 46 and result["lut"] <= 0.85*20_800 and result["dsp"] <= 90


def test_the_larger_arty_has_room_for_twice_the_columns_and_lanes():
    result = json.loads(resources.RESULT.read_text())["arty-a7-100"]
    assert all(result[kind] <= 0.7*result[f"limit_{kind}"] for kind in resources.KINDS)


UNSTYLED = """
module top (input clk, input we, input [12:0] a, input [31:0] d, output reg [31:0] p,
            output reg [31:0] q, output reg [31:0] r,
            output [31:0] s, output reg [31:0] t);
    STYLE reg [31:0] sized [0:5119];
    (* rom_style = "logic" *) reg [31:0] rom [0:511];
    (* ram_style = "distributed" *) reg [31:0] told [0:511];
    reg [31:0] asynchronous [0:511];
    reg [31:0] small [0:15];
    initial rom[7] = 32'd1234;
    assign s = asynchronous[a[8:0]];
    always @(posedge clk) begin
        if (we) begin sized[a] <= d; told[a[8:0]] <= d; asynchronous[a[8:0]] <= d; small[a[3:0]] <= d; end
        p <= sized[a]; q <= rom[a[8:0]]; r <= told[a[8:0]]; t <= small[a[3:0]];
    end
endmodule
"""


@pytest.mark.parametrize("style, styled", [("", False), ('(* ram_style = "block" *)', True),
                                           ('(* ram_style = "logic" *)', False)])
def test_memories_are_counted_as_vivado_takes_them(tmp_path, style, styled):
    """Extended to a power of two; what is read with a clock and has no style that Vivado knows is block RAM, however
    small."""
    source = tmp_path/"a name"/"top.v"
    source.parent.mkdir()
    source.write_text(UNSTYLED.replace("STYLE", style))
    found = {memory.name: memory for memory in memories.find([source], "top", tmp_path/"out", source.parent)}
    assert {name: memory.block_rams for name, memory in found.items()} == {
        "sized": 8, "rom": 0.5, "told": 0, "asynchronous": 0, "small": 0.5}
    assert (found["sized"].styled == styled and not found["rom"].styled and found["told"].styled
            and not found["small"].styled)


def test_memories_belong_to_their_unit():
    def memory(name):
        return memories.Memory(name, 8, 512, 1, 1, True, "block")
    units = ("matvec", "soc", "core, between units")
    assert [resources.unit_of(memory(name), units) for name in (
        "rom0", "VexRiscv.banks_0", "llama2_core.matvec.scales", r"$flatten\\llama2_core.\\matvec.\\table.$auto$rom",
        "llama2_core.left")] == [
                                 "soc", "soc", "matvec", "matvec", "core, between units"]
