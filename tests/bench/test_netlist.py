"""The path ranking of a mapped netlist."""
import subprocess
import sys
from pathlib import Path

import pytest

from bench.netlist import CLOCK_TO_OUT, LOGIC, SETUP, Netlist
from bench.synthesis import run_yosys
from soc.multipliers import absorb

ROOT = Path(__file__).resolve().parent.parent.parent

SOURCE = """
module top (input clk, input [15:0] a, input [15:0] b, input [9:0] where, output reg [31:0] product, output reg near,
            output reg [17:0] word, output reg [31:0] sum);
    reg [15:0] x, y; reg far;
    (* no_rw_check *) reg [17:0] memory [0:1023]; reg [17:0] out;
    always @(posedge clk) begin
        x <= a; y <= b; far <= a[0]; near <= far;
        product <= x * y;
        memory[where] <= a; out <= memory[b[9:0]]; word <= out;
        sum <= sum + {16'd0, x};
    end
endmodule
"""


@pytest.fixture(scope="module")
def netlist(tmp_path_factory):
    out = tmp_path_factory.mktemp("netlist")
    (out/"top.v").write_text(SOURCE)
    run_yosys([f"read_verilog {out/'top.v'}", f"synth_ecp5 -abc9 -top top -json {out/'top.json'}"], out/"yosys.log")
    return Netlist(out/"top.json", "top")


def row(netlist, to):
    return next(row for row in netlist.worst(netlist.estimate(), 100, per_source=100) if row["to"] == to)


def test_names_start_end_and_cells(netlist):
    product = row(netlist, "product")
    assert product["from"] in ("x", "y") and product["cells"] == "ff mult"
    assert product["ns"] > CLOCK_TO_OUT["TRELLIS_FF"] + LOGIC["MULT18X18D"] + SETUP
    assert row(netlist, "word")["cells"] == "bram" and row(netlist, "near")["cells"] == "ff"


def test_a_carry_chain_counts_its_length(netlist):
    total = row(netlist, "sum")
    assert total["cells"].startswith("ff") and total["cells"].endswith("carry*16")


def test_registers_in_a_multiplier_begin_and_end_paths(tmp_path):
    (tmp_path/"top.v").write_text(SOURCE.replace("x <= a; y <= b;", "x0 <= a; y0 <= b; x <= x0; y <= y0;")
                                  .replace("reg far;", "reg far; reg [15:0] x0, y0; reg [31:0] again;")
                                  .replace("product <= x * y;", "again <= x * y; product <= again;"))
    run_yosys([f"read_verilog {tmp_path/'top.v'}", f"synth_ecp5 -abc9 -top top -json {tmp_path/'top.json'}"],
              tmp_path/"yosys.log")
    before = Netlist(tmp_path/"top.json", "top")
    absorb(tmp_path/"top.json")
    after = Netlist(tmp_path/"top.json", "top")
    assert row(before, "again")["cells"] == "ff mult"
    product = row(after, "product")
    assert (product["from"], product["cells"]) == ("again", "mult") and product["ns"] < row(before, "again")["ns"]
    rows = after.worst(after.estimate(), 100, per_source=100)
    assert any(row["to"].endswith("(A)") and row["from"] == "x0" and row["cells"] == "ff" for row in rows)


def test_slowest_first(netlist):
    ns = [row["ns"] for row in netlist.worst(netlist.estimate(), 100, per_source=100)]
    assert ns == sorted(ns, reverse=True) and row(netlist, "near")["ns"] < row(netlist, "product")["ns"]


def test_yosys_command_line(tmp_path):
    (tmp_path/"good.ys").write_text("read_verilog -lib +/ecp5/cells_sim.v\nlog done\n")
    (tmp_path/"bad.ys").write_text("read_verilog no-such-file.v\n")
    def run(script):
        return subprocess.run([sys.executable, "-m", "soc.yosys", "-q", "-l", tmp_path/"log", tmp_path/script],
                              cwd=ROOT,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT).returncode
    assert run("good.ys") == 0 and "done" in (tmp_path/"log").read_text()
    assert run("bad.ys") != 0
