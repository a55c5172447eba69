/* Prompt lookup: what followed the last tokens when they occurred before, as a guess of what follows now.
 * Places of equal tokens are chained, newest first, so that a guess costs the same however long the history is. */
#include "lookup.h"

#include <generated/llama2_spec.h>

#define AT(position) ((position) % PROTOCOL_LOOKUP_HISTORY)

static uint32_t *head_of(struct lookup *lookup, uint32_t token)
{
	return &lookup->heads[(token ^ token >> 8) % LOOKUP_HEADS];
}

/* First position whose token is still there. */
static uint32_t oldest(const struct lookup *lookup)
{
	uint32_t count = lookup->end - lookup->first;

	return count < PROTOCOL_LOOKUP_HISTORY ? lookup->first : lookup->end - PROTOCOL_LOOKUP_HISTORY;
}

static void forget(struct lookup *lookup, uint32_t position)
{
	for (uint32_t i = 0; i < LOOKUP_HEADS; i++)
		lookup->heads[i] = 0;
	lookup->first = lookup->end = position;
}

void lookup_forget(struct lookup *lookup)
{
	forget(lookup, 0);
}

void lookup_rewind(struct lookup *lookup, uint32_t position)
{
	if (position > lookup->end || position <= oldest(lookup)) {
		forget(lookup, position);
		return;
	}
	lookup->first = oldest(lookup); /* what was overwritten stays lost */
	/* Newest first: each is then the head of its chain. */
	while (lookup->end != position) {
		uint32_t at = AT(--lookup->end);
		uint32_t *head = head_of(lookup, lookup->tokens[at]);

		*head = lookup->back[at] != 0 ? *head - lookup->back[at] : 0;
	}
}

void lookup_add(struct lookup *lookup, uint32_t token)
{
	uint32_t *head = head_of(lookup, token);
	uint32_t distance = *head != 0 ? lookup->end + 1 - *head : 0;

	lookup->tokens[AT(lookup->end)] = token;
	lookup->back[AT(lookup->end)] = distance < PROTOCOL_LOOKUP_HISTORY ? distance : 0;
	*head = ++lookup->end;
}

/* How many tokens up to position, limit at most, equal the last ones. */
static uint32_t equal_before(const struct lookup *lookup, uint32_t position, uint32_t limit)
{
	uint32_t n = 0;

	while (n < limit && lookup->tokens[AT(position - n)] == lookup->tokens[AT(lookup->end - 1 - n)])
		n++;
	return n;
}

uint32_t lookup_guess(const struct lookup *lookup, uint32_t *tokens, uint32_t limit)
{
	uint32_t position = lookup->end - 1, first = oldest(lookup);
	uint32_t best = 0, length = 0;

	if (lookup->end == lookup->first)
		return 0;
	for (uint32_t step = 0; step < PROTOCOL_LOOKUP_STEPS && length < PROTOCOL_LOOKUP_SUFFIX; step++) {
		uint32_t back = lookup->back[AT(position)];
		uint32_t n, known;

		if (back == 0 || position - first < back)
			break;
		position -= back;
		known = position - first + 1;
		n = equal_before(lookup, position, known < PROTOCOL_LOOKUP_SUFFIX ? known : PROTOCOL_LOOKUP_SUFFIX);
		if (n > length) {
			length = n;
			best = position;
		}
	}
	if (length < 2 && limit > length)
		limit = length;
	/* Past the end of the history it goes on as it repeated until there. */
	for (uint32_t i = 0; i < limit; i++) {
		uint32_t from = best + 1 + i;

		tokens[i] = from < lookup->end ? lookup->tokens[AT(from)] : tokens[from - lookup->end];
	}
	return limit;
}
