// Storage of one DRAM bank behind LiteDRAM's PHY model (simulation only). `+dram=FILE` on the simulator's command
// line lays a flat image over the banks when the simulation starts, from the base of main_ram: rows of ROW_WORDS
// 16-byte words go to the banks in turn (ROW_BANK_COL).
module dram_bank #(
	parameter BANK      = 0,
	parameter BANKS     = 8,
	parameter DEPTH     = 2097152,
	parameter ROW_WORDS = 128,
	parameter BAD_ROW   = 1000    // of all banks, in the order of the address space; bad with +dram_fault=row only
) (
	input                      clk,
	input  [15:0]              we,
	input  [$clog2(DEPTH)-1:0] waddr,
	input  [127:0]             wdata,
	input                      re,       // without it rdata is 0, and the simulator looks nothing up
	input  [$clog2(DEPTH)-1:0] raddr,
	output [127:0]             rdata
);
	reg [127:0] words [0:DEPTH-1];

	reg            bad_row = 0;    // this bank has it
	reg [8*16-1:0] fault;
	initial
		if ($value$plusargs("dram_fault=%s", fault))
			bad_row = fault == "row" && BAD_ROW % BANKS == BANK;
	assign rdata = !re ? 0 : bad_row && raddr / ROW_WORDS == BAD_ROW / BANKS ? words[raddr] | 128'h8001 : words[raddr];

	// One assignment for the word: of sixteen, one a byte, the simulator asks in every cycle whether each was made.
	integer     lane;
	reg [127:0] merged;
	always @(posedge clk)
		if (we != 0) begin
			merged = words[waddr];
			for (lane = 0; lane < 16; lane = lane + 1)
				if (we[lane])
					merged[8*lane +: 8] = wdata[8*lane +: 8];
			words[waddr] <= merged;
		end

	reg [8*4096-1:0] name;
	reg [127:0]      word;
	integer          file, row, at, got;
	initial
		if ($value$plusargs("dram=%s", name)) begin
			file = $fopen(name, "rb");
			if (file == 0) begin
				$display("dram_bank: cannot read the +dram image");
				$finish;
			end else begin
				got = 1;
				for (row = 0; row < DEPTH; row = row + ROW_WORDS) if (got != 0) begin
					got = $fseek(file, 16*(BANKS*row + BANK*ROW_WORDS), 0);
					got = $fread(words, file, row, ROW_WORDS);
					// $fread puts the first byte on top, memory has it at the bottom.
					if (got != 0)
						for (at = row; at < row + ROW_WORDS; at = at + 1) begin
							word      = words[at];
							words[at] = {<<8{word}};
						end
				end
				$fclose(file);
			end
		end
endmodule
