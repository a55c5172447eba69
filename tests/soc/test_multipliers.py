"""Registers that move into multipliers: which do, which must not, and that the netlist does what it did before."""
import json

import pytest

pytest.importorskip("pyosys", reason="needs pyosys")

from bench.synthesis import run_yosys
from soc import multipliers

A, B = 3, 7          # bits of the factors: small, for the proof

#: What TN-02205 says of the block, as far as it is used: registers without reset, enabled always.
BLOCK = """
module MULT18X18D(input %s, SIGNEDA, SIGNEDB, SOURCEA, SOURCEB, CLK0, CE0, RST0, output %s);
    parameter REG_INPUTA_CLK = "NONE"; parameter REG_INPUTB_CLK = "NONE"; parameter REG_OUTPUT_CLK = "NONE";
    parameter GSR = "ENABLED";
    wire [17:0] a = {%s}, b = {%s};
    reg [17:0] a1, b1;
    reg [35:0] p1;
    wire [17:0] a2 = REG_INPUTA_CLK == "CLK0" ? a1 : a, b2 = REG_INPUTB_CLK == "CLK0" ? b1 : b;
    wire [35:0] p = {{18{SIGNEDA & a2[17]}}, a2} * {{18{SIGNEDB & b2[17]}}, b2};
    always @(posedge CLK0) begin a1 <= a; b1 <= b; p1 <= p; end
    assign {%s} = REG_OUTPUT_CLK == "CLK0" ? p1 : p;
endmodule
""" % (", ".join(f"{x}{i}" for x in "ABC" for i in range(18)), ", ".join(f"P{i}" for i in range(36)),
       *(", ".join(f"{x}{i}" for i in reversed(range(n))) for x, n in (("A", 18), ("B", 18), ("P", 36))))

#: name: (assignments at a clock edge, how many products and pairs of factors move)
CASES = {
    "all": ("a1 <= a0; b1 <= b0; p <= m; q <= p", (1, 1)),
    "no factor is registered": ("p <= a0 * b; q <= p", (1, 0)),
    "a factor has logic before it": ("a1 <= a0 + b0; b1 <= b0; p <= m; q <= p", (1, 0)),
    "a factor waits": ("if (en) a1 <= a0; b1 <= b0; p <= m; q <= p", (1, 0)),
    "a factor is reset": ("a1 <= en ? a0 : 0; b1 <= b0; p <= m; q <= p", (1, 0)),
    "the product waits": ("a1 <= a0; b1 <= b0; if (en) p <= m; q <= p", (0, 1)),
    "the product is added to": ("a1 <= a0; b1 <= b0; p <= m + q; q <= p", (0, 1)),
    "the product is read before its register, too": ("a1 <= a0; b1 <= b0; p <= m; q <= p ^ m", (0, 1)),
    "a factor has another reader": ("a1 <= a0; b1 <= b0; p <= m; q <= p ^ a1", (1, 1)),
    "a product is multiplied": ("a1 <= a0; b1 <= b0; p <= m; q <= p * b1", (2, 1)),
}


def source(name, edge):
    return f"""module {name}(input clk, en, input signed [{A - 1}:0] a, input signed [{B - 1}:0] b,
    output reg signed [{A + 2*B - 1}:0] q);
        reg signed [{A - 1}:0] a0, a1; reg signed [{B - 1}:0] b0, b1; reg signed [{A + B - 1}:0] p;
        wire signed [{A + B - 1}:0] m = a1 * b1;
        always @(posedge clk) begin a0 <= a; b0 <= b; {edge}; end
    endmodule"""


def synthesised(directory, edge):
    (directory/"gate.v").write_text(source("gate", edge))
    run_yosys(["read_verilog gate.v", "synth_ecp5 -top gate -json gate.json"], directory/"map.log", directory)
    return directory/"gate.json"


def cells(netlist):
    return list(json.loads(netlist.read_text())["modules"]["gate"]["cells"].values())


@pytest.mark.parametrize("name", CASES)
def test_what_moves_and_that_nothing_else_changes(name, tmp_path):
    edge, (products, factors) = CASES[name]
    netlist = synthesised(tmp_path, edge)
    before = cells(netlist)
    assert any(cell["type"] == "MULT18X18D" for cell in before)
    done = multipliers.absorb(netlist)
    assert (done["product"], done["factors"]) == (products, factors)
    flip_flops = [sum(cell["type"] == "TRELLIS_FF" for cell in some) for some in (before, cells(netlist))]
    assert flip_flops[1] < flip_flops[0] or not products

    (tmp_path/"gold.v").write_text(source("gold", edge))
    (tmp_path/"block.v").write_text(BLOCK)
    run_yosys(["read_json gate.json", "select gate", "write_verilog -noattr -selected mapped.v", "design -reset",
               "read_verilog mapped.v", "read_verilog block.v", "read_verilog -overwrite +/ecp5/cells_sim.v",
               "hierarchy -top gate", "proc", "flatten", "opt_clean", "design -stash gate",
               "read_verilog gold.v", "hierarchy -top gold", "proc", "opt_clean",
               "design -stash gold", "design -copy-from gold -as gold gold", "design -copy-from gate -as gate gate",
               "miter -equiv -flatten -make_outputs gold gate miter", "hierarchy -top miter",
               "sat -verify -prove trigger 0 -set-init-zero -seq 5 miter"],
              tmp_path/"equal.log", tmp_path)


def test_what_has_moved_stays(tmp_path):
    netlist = synthesised(tmp_path, CASES["all"][0])
    multipliers.absorb(netlist)
    once = netlist.read_text()
    assert not multipliers.absorb(netlist)["product"]
    assert netlist.read_text() == once
