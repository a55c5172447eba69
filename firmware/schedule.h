/* Who gets the columns of the next pass: a rule, and nothing that it acts on. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* A slot that could use columns now. */
struct demand {
	uint32_t columns; /* at most: what is left of its prompt, or one and its guesses */
	uint32_t since;   /* the lower goes first: when its prompt came, or when it had a column last */
	bool prompt;      /* it is fed; otherwise it decodes */
	bool classified;  /* its last column needs logits; of a prompt, only with all of its columns */
	bool alone;       /* and no other column of the pass may have any: candidates, or logits that are handed over */
	uint32_t granted;
};

/* What a pass has room for, and what led the last one. */
struct schedule {
	uint32_t columns;
	bool prompts_led; /* while a slot decoded */
};

/* Grant columns to count demands, at least one column if there is one demand; returns how many in all.
 *
 * Slots that decode come first, a column each, the one that waited longest before the others; then prompts, the oldest
 * first; then guesses. Where that leaves prompts less than half of a pass, or one of them nothing, since the logits of
 * its end cannot stand beside others, they lead every other one and take what they can use. So while a prompt waits,
 * prompts get half of the columns; and of d slots that decode on c columns, none is without one for more than
 * 2 * ceil(d / c) - 1 passes in a row: one, where a pass has room for all of them. A slot whose logits stand alone
 * takes the place of all that decode; with such among them, it is 2 * d - 1.
 *
 * led says whether prompts led this one; it is the next call's prompts_led, if the pass is run. */
uint32_t schedule_fill(const struct schedule *schedule, struct demand *demands, uint32_t count, bool *led);
