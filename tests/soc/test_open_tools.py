"""Scripts for Yosys map what LiteX reads for them."""
import json

import pytest

from bench.synthesis import run_yosys
from soc import open_tools

ROM = """
module {top}(input clk, input [3:0] address, output reg [7:0] data);
(* rom_style = "distributed" *) reg [7:0] rom [0:15];
initial begin {words} end
always @(posedge clk) data <= rom[address];
endmodule
"""


@pytest.mark.parametrize("deferred", [False, True])
def test_a_rom_in_look_up_tables_is_mapped(tmp_path, deferred):
    """Whether files are elaborated when they are read or, as LiteX has it, later: Yosys knows no distributed ROM."""
    words = " ".join(f"rom[{n}] = {(7 * n * n + 3) % 256};" for n in range(16))
    (tmp_path/"rom.v").write_text(ROM.format(top="rom_top", words=words))
    read = f'read_verilog {"-defer" if deferred else ""} "{tmp_path}/rom.v"'
    run_yosys([read, *open_tools.synth_ecp5("-abc9 -top rom_top"), f'write_json "{tmp_path}/rom.json"'], tmp_path/"log")
    cells = json.loads((tmp_path/"rom.json").read_text())["modules"]["rom_top"]["cells"].values()
    kinds = {cell["type"] for cell in cells}
    assert {"LUT4", "TRELLIS_FF"} <= kinds and "DP16KD" not in kinds
