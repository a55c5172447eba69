// Watches the DFI between LiteDRAM and its PHY model, and prints one line for each DRAM timing that is violated.
// It works only in cycles that carry a command: LiteDRAM's own checker computes every rule in every cycle, which costs
// two fifths of the simulator's speed.
module dram_timing #(
	parameter BANK_BITS = 3,
	parameter PHASES    = 4,
	parameter TCK_PS    = 2500,
	parameter TRRD_PS   = 0,
	parameter TFAW_PS   = 0,
	parameter TREFI_PS  = 0,
	parameter [8*8*32-1:0] DELAYS_PS = 0,    // least time from command p to command c on a bank, 32 bits at 8*p + c
	parameter LINES     = 10000              // then it is silent: enough is known, and the disk is finite
) (
	input                        clk,
	input                        cke,
	input [PHASES-1:0]           cs_n,
	input [PHASES-1:0]           ras_n,
	input [PHASES-1:0]           cas_n,
	input [PHASES-1:0]           we_n,
	input [PHASES-1:0]           a10,
	input [PHASES*BANK_BITS-1:0] bank
);
	// Commands are numbered by {ras_n, cas_n, we_n}. Ref: JESD79-3F, table 6.
	localparam REF = 1, PRE = 2, ACT = 3, WR = 4, RD = 5, ZQCS = 6, NOP = 7;
	localparam BANKS = 1 << BANK_BITS;
	// A refresh serves one interval, and the fraction of a cycle by which controllers round it up.
	localparam [63:0] SERVED_PS = TREFI_PS + PHASES*TCK_PS;

	reg [63:0] now_ps = 0;                      // of phase 0
	reg [63:0] last_ps [0:8*BANKS-1];           // of command c on bank b at 8*b + c; 0: never
	reg [63:0] act_ps [0:3];                    // of the last four activates, a ring
	reg [1:0]  newest = 0;
	reg        refreshed = 0;
	reg [63:0] owed_ps = 0;                     // time that has passed and that no refresh has served

	integer    lines = 0;
	integer    phase, b, previous, i;
	reg [2:0]  command;
	reg        all_banks;
	reg [63:0] ps;

	initial begin
		for (i = 0; i < 8*BANKS; i = i + 1) last_ps[i] = 0;
		for (i = 0; i < 4; i = i + 1) act_ps[i] = 0;
	end

	function [8*4-1:0] name(input integer c);
		case (c)
			REF:     name = "REF";
			PRE:     name = "PRE";
			ACT:     name = "ACT";
			WR:      name = "WR";
			RD:      name = "RD";
			default: name = "ZQCS";
		endcase
	endfunction

	always @(posedge clk) begin
		now_ps = now_ps + PHASES*TCK_PS;
		if (cs_n != {PHASES{1'b1}})
			for (phase = 0; phase < PHASES; phase = phase + 1) begin
				command = {ras_n[phase], cas_n[phase], we_n[phase]};
				if (!cs_n[phase] && command != 0 && command != NOP) begin
					ps        = now_ps + phase*TCK_PS;
					all_banks = command == REF || command == PRE && a10[phase];
					for (b = 0; b < BANKS; b = b + 1)
						if (all_banks || bank[BANK_BITS*phase +: BANK_BITS] == b[BANK_BITS-1:0]) begin
							for (previous = REF; previous <= ZQCS; previous = previous + 1)
								if (last_ps[8*b + previous] != 0 &&
								    ps < last_ps[8*b + previous] + {32'd0, DELAYS_PS[32*(8*previous + command) +: 32]} &&
								    lines < LINES) begin
									lines = lines + 1;
									$display("[%0dps] %0s->%0s violation on bank %0d", ps, name(previous), name(command), b);
								end
							last_ps[8*b + command] = ps;
						end
					if (command == ACT) begin
						if (act_ps[newest] != 0 && ps < act_ps[newest] + TRRD_PS && lines < LINES) begin
							lines = lines + 1;
							$display("[%0dps] tRRD violation on bank %0d", ps, bank[BANK_BITS*phase +: BANK_BITS]);
						end
						newest = newest + 1;    // the oldest of the four
						if (act_ps[newest] != 0 && ps < act_ps[newest] + TFAW_PS && lines < LINES) begin
							lines = lines + 1;
							$display("[%0dps] tFAW violation on bank %0d", ps, bank[BANK_BITS*phase +: BANK_BITS]);
						end
						act_ps[newest] = ps;
					end
					if (command == REF) begin
						owed_ps   = refreshed && owed_ps > SERVED_PS ? owed_ps - SERVED_PS : 0;
						refreshed = 1;
					end
				end
			end
		// Eight refreshes may be postponed, so the ninth must come before nine intervals have passed.
		// Without cke the DRAM is being initialised and keeps nothing.
		if (!cke)
			refreshed = 0;
		if (refreshed) begin
			owed_ps = owed_ps + PHASES*TCK_PS;
			if (owed_ps > 9*TREFI_PS) begin
				if (lines < LINES) begin
					lines = lines + 1;
					$display("[%0dps] tREFI violation", now_ps);
				end
				owed_ps = 0;
			end
		end
	end
endmodule
