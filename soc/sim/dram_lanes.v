// A read as the controller sees it through two byte lanes, each of which is right only at the delays of its window (simulation
// only; see lanes.py). Byte k of a lane in a 16-byte word is byte 2*k + lane.
module dram_lanes #(
	parameter TAPS  = 8,     // delays of one bit time
	parameter WIDTH = 5      // delays that read well
) (
	input      [7:0]   delay,      // 4 bits a lane
	input      [7:0]   bitslip,    // 4 bits a lane
	input      [127:0] sent,
	output reg [127:0] seen,
	output reg [15:0]  trained     // what training would choose; 0: it has to
);
	integer start [0:1];           // first good delay, counted from delay 0 of bitslip 0
	integer lane, k;
	reg     stuck;
	reg     good [0:1];
	reg [8*16-1:0] fault;

	initial begin
		start[0] = TAPS + 1;
		start[1] = 2;
		stuck    = 0;
		trained  = {4'd0, 4'd4, 4'd1, 4'd3};
		if ($test$plusargs("dram_train"))
			trained = 0;
		if ($value$plusargs("dram_fault=%s", fault)) begin
			trained = 0;
			stuck   = fault == "stuck";
			if (fault == "shifted")
				start[1] = 2*TAPS - 2;
		end
	end

	always @(*) begin
		seen = sent;
		for (lane = 0; lane < 2; lane = lane + 1) begin
			k          = TAPS*{28'd0, bitslip[4*lane +: 4]} + {28'd0, delay[4*lane +: 4]} - start[lane];
			good[lane] = k >= 0 && k < WIDTH;
		end
		for (lane = 0; lane < 2; lane = lane + 1)
			if (!good[lane])
				for (k = 0; k < 8; k = k + 1)
					seen[8*(2*k + lane) +: 8] = sent[8*(2*((k + 7) % 8) + lane) +: 8];
		if (stuck)
			for (k = 0; k < 8; k = k + 1)
				seen[8*(2*k + 1) +: 8] = 8'hff;
	end
endmodule
