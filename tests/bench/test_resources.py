"""Counting cells, and the table in the documents."""
import json

import pytest

from bench import resources
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


def test_failing_yosys_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="yosys failed"):
        run_yosys(["read_verilog no-such-file.v"], tmp_path/"yosys.log")


def test_page_holds_what_was_measured():
    results = json.loads(resources.RESULT.read_text())
    text = resources.PAGE.read_text()
    assert resources.table(results) == text.split(resources.BEGIN + "\n")[1].split(resources.END)[0], "run make resources"


@pytest.mark.parametrize("name", resources.TARGETS)
def test_totals_are_the_sums_of_the_units(name):
    result = json.loads(resources.RESULT.read_text())[name]
    for kind in resources.KINDS:
        assert result[kind] == sum(unit[kind] for unit in result["units"].values()) and result[f"limit_{kind}"] > 0
