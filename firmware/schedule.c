/* Who gets the columns of the next pass: a rule, and nothing that it acts on. */
#include "schedule.h"

struct pass {
	uint32_t columns; /* that are left */
	bool logits;      /* a column has them */
	bool alone;       /* and stands alone */
};

/* Give a demand its columns of a pass, as far as they fit together with what was granted before. */
static void grant(struct pass *pass, struct demand *demand)
{
	uint32_t most = demand->prompt ? demand->columns : 1;
	bool last;

	if (most > pass->columns)
		most = pass->columns;
	last = most != 0 && demand->classified && (!demand->prompt || most == demand->columns);
	if (last && (pass->alone || (demand->alone && pass->logits))) {
		/* A prompt's end can wait for the next pass. */
		most = demand->prompt ? most - 1 : 0;
		last = false;
	}
	if (most == 0)
		return;
	demand->granted = most;
	pass->columns -= most;
	pass->logits |= last;
	pass->alone |= last && demand->alone;
}

/* Go through the slots that decode, or the prompts, each once, in their order. */
static void grant_all(struct pass *pass, struct demand *demands, uint32_t count, bool prompts)
{
	uint32_t done = 0;

	for (uint32_t turn = 0; turn < count; turn++) {
		uint32_t first = count;

		for (uint32_t i = 0; i < count; i++)
			if (demands[i].prompt == prompts && (done >> i & 1) == 0 &&
			    (first == count || (int32_t)(demands[i].since - demands[first].since) < 0))
				first = i;
		if (first == count)
			return;
		done |= 1u << first;
		grant(pass, &demands[first]);
	}
}

/* Prompts lead this pass: slots that decode led the last one, and would leave them less than half of this one, or one
 * of them nothing: its end is left, whose logits cannot stand beside theirs. */
static bool prompts_lead(const struct schedule *schedule, const struct demand *demands, uint32_t count)
{
	uint32_t decoding = 0, left;
	bool alone = false, end = false;

	for (uint32_t i = 0; i < count; i++) {
		decoding += !demands[i].prompt;
		alone |= demands[i].alone && demands[i].classified;
		end |= demands[i].prompt && demands[i].classified && demands[i].columns == 1;
	}
	if (decoding == 0 || decoding == count || schedule->prompts_led)
		return false;
	left = schedule->columns <= decoding ? 0 : schedule->columns - decoding;
	return 2 * left < schedule->columns || (alone && end);
}

uint32_t schedule_fill(const struct schedule *schedule, struct demand *demands, uint32_t count, bool *led)
{
	struct pass pass = {schedule->columns, false, false};

	for (uint32_t i = 0; i < count; i++)
		demands[i].granted = 0;
	*led = prompts_lead(schedule, demands, count);
	grant_all(&pass, demands, count, *led);
	grant_all(&pass, demands, count, !*led);
	for (uint32_t i = 0; i < count && !pass.alone; i++) {
		uint32_t more =
		    demands[i].prompt || demands[i].granted == 0 ? 0 : demands[i].columns - demands[i].granted;

		more = more < pass.columns ? more : pass.columns;
		demands[i].granted += more;
		pass.columns -= more;
	}
	return schedule->columns - pass.columns;
}
