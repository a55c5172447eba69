"""What counts as the same hardware: names and hierarchy do not matter, everything that acts does."""
import pytest

from bench import same_core

BODY = """
module core(input clk, input [3:0] a, input [3:0] b, output [3:0] y);
  reg [3:0] {kept} = 4'd{init};
  always @(posedge clk) {kept} <= a {op} b;
  assign y = {kept};
endmodule
"""
APART = """
module half(input clk, input [1:0] p, input [1:0] q, output reg [1:0] r);
  initial r = 2'd0;
  always @(posedge clk) r <= p + q;
endmodule
module core(input clk, input [3:0] a, input [3:0] b, output [3:0] y);
  half low(.clk(clk), .p(a[1:0]), .q(b[1:0]), .r(y[1:0]));
  half high(.clk(clk), .p(a[3:2]), .q(b[3:2]), .r(y[3:2]));
endmodule
"""
FLAT = """
module core(input clk, input [3:0] a, input [3:0] b, output [3:0] y);
  reg [1:0] low = 0, high = 0;
  always @(posedge clk) begin low <= a[1:0] + b[1:0]; high <= a[3:2] + b[3:2]; end
  assign y = {high, low};
endmodule
"""

# Fields of one register, one of which has a name: Yosys keeps its initial value there, and x at the whole
FIELDS = """
module core(input clk, input [3:0] a, input [3:0] b, output [3:0] y);
  reg [3:0] first = 0, second = 0;
  wire top;
  assign top = second[3];
  always @(posedge clk) begin first <= a; second <= first; end
  assign y = {top, second[2:0]};
endmodule
"""
ALONE = """
module core(input clk, input [3:0] a, input [3:0] b, output [3:0] y);
  reg [3:0] first = 0, second = 0;
  always @(posedge clk) begin first <= a; second <= first; end
  assign y = second;
endmodule
"""


@pytest.fixture
def netlist(tmp_path):
    pytest.importorskip("pyosys")

    def make(name, text):
        path = tmp_path/f"{name}.v"
        path.write_text(text)
        return same_core.netlist(path)
    return make


def body(kept="kept", op="&", init=0):
    return BODY.format(kept=kept, op=op, init=init)


def test_names_and_hierarchy_do_not_matter(netlist):
    assert same_core.differences(netlist("a", body()), netlist("b", body(kept="other"))) == []
    assert same_core.differences(netlist("apart", APART), netlist("flat", FLAT)) == []
    assert same_core.differences(netlist("fields", FIELDS), netlist("alone", ALONE)) == []


@pytest.mark.parametrize("change", [dict(op="|"), dict(init=1)])
def test_what_acts_matters(netlist, change):
    assert "output y differs" in same_core.differences(netlist("a", body()), netlist("b", body(**change)))


def test_a_spare_gate_is_told(netlist):
    """The outputs do the same, but a gate is there twice."""
    twice = "module core(input a, input b, output y, output z);\n  assign y = a & b;\n  assign z = {};\nendmodule\n"
    (line,) = same_core.differences(netlist("a", twice.format("y")), netlist("b", twice.format("a & b")))
    assert "more {'$_AND_': 1}" in line
