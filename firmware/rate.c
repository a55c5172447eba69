/* The serial line's rate: a new one is kept only once the host has shown that it works in both directions. */
#include "rate.h"

#include "board.h"
#include "link.h"
#include "llama2.h"

static struct {
	enum { KEPT,
	       WANTED,
	       TRIED } state;
	uint32_t rate;           /* WANTED: the next one, TRIED: the present one */
	uint32_t confirm_cycles;
	uint32_t since;          /* TRIED: cycle counter at the switch */
} change;

static enum status check(const struct wire_baud *baud, struct wire_error *error)
{
	uint32_t maximum = board_baud_maximum();

	if (baud->rate != 0 && (baud->rate < PROTOCOL_MIN_BAUD || baud->rate > maximum)) {
		*error = (struct wire_error){SUBJECT_BAUD, baud->rate, maximum};
		return STATUS_BAD_VALUE;
	}
	if (baud->confirm_ms > PROTOCOL_MAX_CONFIRM) {
		*error = (struct wire_error){SUBJECT_CONFIRM, baud->confirm_ms, PROTOCOL_MAX_CONFIRM};
		return STATUS_BAD_VALUE;
	}
	return STATUS_OK;
}

enum status rate_request(const struct wire_baud *baud, struct wire_line *line, struct wire_error *error)
{
	enum status status = check(baud, error);

	if (status != STATUS_OK)
		return status;
	line->rate = board_baud();
	line->first = board_baud_first();
	line->maximum = board_baud_maximum();
	if (baud->rate == 0)
		return STATUS_OK;
	if (baud->rate == board_baud()) {
		change.state = KEPT; /* it is confirmed */
		return STATUS_OK;
	}
	line->rate = baud->rate;
	change.state = WANTED;
	change.rate = baud->rate;
	/* At most 10 s: 32 bits last for 40 s of a 100 MHz clock. */
	change.confirm_cycles = board_clock_hz() / 1000 * baud->confirm_ms;
	return STATUS_OK;
}

void rate_poll(void)
{
	if (change.state == WANTED && link_sent()) {
		board_baud_set(change.rate);
		change.since = llama2_cycles();
		change.state = change.rate == board_baud_first() ? KEPT : TRIED;
	} else if (change.state == TRIED && llama2_cycles() - change.since > change.confirm_cycles) {
		board_baud_set(board_baud_first());
		change.state = KEPT;
	}
}
