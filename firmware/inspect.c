/* Requests by which a host inspects a board. */
#include "inspect.h"

#include <stdbool.h>
#include <stdint.h>

#include "answer.h"
#include "board.h"
#include "dram.h"
#include "flash.h"
#include "link.h"
#include "llama2.h"

#define MAX_DELAYS 64u /* of a lane; the boards have 8 and 32 */

void inspect_board(void)
{
	struct wire_board answer = {.dram_status = board_dram_ok(),
				    .lanes = board_lanes(),
				    .delays = board_delays(),
				    .bitslips = board_bitslips(),
				    .flash_id = flash_id(),
				    .boot = boot_id};

	board_describe(&answer);
	dram_failed(&answer);
	reply(&answer, sizeof answer);
}

void inspect_lane(const struct wire_lane *what)
{
	struct wire_eye eye = {.boot = boot_id};
	uint32_t errors[MAX_DELAYS];

	if (what->lane >= board_lanes() || what->bitslip >= board_bitslips() || board_delays() > MAX_DELAYS) {
		refuse(STATUS_BAD_VALUE, SUBJECT_LANE, what->lane, board_lanes());
		return;
	}
	dram_scan(what, &eye, errors);
	link_send2(request->opcode, STATUS_OK, link_sequence(), &eye, sizeof eye, errors,
		   board_delays() * sizeof errors[0]);
}

#define NEVER ((uint64_t)1 << 40) /* longer than any DRAM */

/* These bytes lie within DRAM, and begin and step at multiples of unit; refuses them otherwise. */
static bool piece(uint32_t offset, uint64_t length, uint32_t steps, uint32_t unit)
{
	bool good = (offset | steps) % unit == 0 && offset + length <= board_dram_bytes();

	if (!good)
		refuse(STATUS_BAD_VALUE, SUBJECT_PLACE, offset, board_dram_bytes());
	return good;
}

void inspect_memory(const struct wire_memory *what)
{
	struct wire_tested tested = {.boot = boot_id};
	bool good = what->count - 1 < PROTOCOL_MAX_PLACES && what->step != 0;
	uint64_t length = good ? (uint64_t)(what->count - 1) * what->step + PROTOCOL_PLACE_BYTES : NEVER;

	if (!piece(what->offset, length, what->step, PROTOCOL_PLACE_BYTES))
		return;
	dram_test(what, &tested);
	reply(&tested, sizeof tested);
}

void inspect_stream(const struct wire_stream *what)
{
	struct wire_streamed streamed = {.boot = boot_id};
	uint32_t *counters = &streamed.cycles; /* beats and starved follow, as in the core */

	if (!piece(what->offset, what->length - 1 < PROTOCOL_MAX_STREAM ? what->length : NEVER, what->length,
		   BEAT_BYTES))
		return;
	for (unsigned i = 0; i < 3; i++)
		counters[i] = -llama2_counter(LLAMA2_PHASE_OTHER, i);
	llama2_crc_begin(what->offset / BEAT_BYTES, what->length / BEAT_BYTES);
	while (llama2_busy())
		;
	for (unsigned i = 0; i < 3; i++)
		counters[i] += llama2_counter(LLAMA2_PHASE_OTHER, i);
	streamed.crc = llama2_crc();
	reply(&streamed, sizeof streamed);
}
