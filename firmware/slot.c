/* A slot: a region of the K/V cache, the generation that runs there or ran there last, and what it remembers. */
#include "slot.h"

#include <string.h>

#include "llama2.h"

static struct {
	uint32_t count;
	uint32_t length;
	uint32_t vocab_size;
	uint32_t columns;
	bool own_candidates;
	struct slot first;
	struct slot *at[PROTOCOL_MAX_SLOTS];
} slots;

static struct {
	uint32_t prompt_tokens, tokens, passes, guessed;
} total;

void slot_install(const struct slot_division *division, uint32_t vocab_size, uint32_t columns, bool own_candidates)
{
	slots.count = division->count;
	slots.length = division->length;
	slots.vocab_size = vocab_size;
	slots.columns = columns;
	slots.own_candidates = own_candidates;
	for (uint32_t i = 0; i < division->count; i++) {
		struct slot *slot = i == 0 ? &slots.first : &division->more[i - 1];

		slots.at[i] = slot;
		memset(slot, 0, sizeof *slot);
		slot->number = i;
		slot->segment = i * division->beats;
		sampler_install(&slot->sampler,
				division->history != 0 ? division->history + i * (division->length + 1) : 0);
		lookup_forget(&slot->lookup);
	}
}

uint32_t slot_count(void)
{
	return slots.count;
}

uint32_t slot_length(void)
{
	return slots.length;
}

struct slot *slot_at(uint32_t number)
{
	return slots.at[number];
}

static void begin_sampler(struct slot *slot)
{
	sampler_select(&slot->sampler);
	sampler_begin(&slot->request);
	slot->sampling = sampler_wanted();
	for (uint32_t i = 0; i < slot->prompt_count; i++)
		sampler_remember(slot->request.position + i, slot->ids[i]);
	sampler_prepare(slot->first);
}

static void begin_speculation(struct slot *slot)
{
	uint32_t most = slots.columns - 1;

	slot->speculate = slot->request.speculate < most ? slot->request.speculate : most;
	slot->guess_count = slot->guess_right = 0;
	slot->guessing = slot->proposed = false;
	if (slot->speculate == 0) {
		lookup_forget(&slot->lookup);
		return;
	}
	lookup_rewind(&slot->lookup, slot->request.position);
	for (uint32_t i = 0; i < slot->prompt_count; i++)
		lookup_add(&slot->lookup, slot->ids[i]);
}

void slot_begin(struct slot *slot, uint32_t sequence, const struct wire_generate *request, uint32_t id_count,
		uint32_t now)
{
	bool all = request->flags & GENERATE_FLAG_ALL_LOGITS;
	uint32_t room;

	slot->request = *request;
	slot->sequence = sequence;
	slot->known = true;
	slot->prompt_count = id_count;
	for (uint32_t i = 0; i < id_count; i++)
		slot->ids[i] = request->ids[i];
	slot->first = request->position + id_count;
	room = slots.length - slot->first + 1; /* the last token needs no position of its own */
	slot->target = request->max_new < room ? request->max_new : room;
	slot->since = now;
	slot->next = request->position;
	slot->classified = 0;
	slot->done = (struct wire_done){.prompt_count = id_count, .start_cycles = llama2_cycles()};
	begin_sampler(slot);
	begin_speculation(slot);
	report_begin(&slot->report, sequence, slot->first, all ? request->position : slot->first - 1, slots.vocab_size);
	/* From here on the rows from position on belong to the new prompt. */
	slot->kv_positions = request->position;
	slot->running = true;
}

/* Guess what follows the last token, which is known: as much as context, request and ring have room for. */
static void propose(struct slot *slot)
{
	uint32_t count = report_count(&slot->report);
	uint32_t positions = slots.length - slot->next - 1, tokens = slot->target - count - 1;
	uint32_t most = slot->speculate;

	most = positions < most ? positions : most;
	most = tokens < most ? tokens : most;
	while (most != 0 && !report_room(&slot->report, most))
		most--;
	slot->guess_count = most != 0 ? lookup_guess(&slot->lookup, slot->guesses, most) : 0;
	slot->guess_right = 0;
	slot->proposed = true;
}

/* Its next column of decoding can be planned: the token is known, or will be in time. */
static bool may_decode(struct slot *slot, bool ahead)
{
	bool known = report_count(&slot->report) > slot->next - slot->first;

	if (slot->classified >= slot->target || !report_room(&slot->report, slot->due))
		return false;
	if (slot->speculate == 0)
		return known || ahead;
	if (slot->guessing || !known)
		return false;
	if (!slot->proposed)
		propose(slot);
	return true;
}

bool slot_demand(struct slot *slot, bool ahead, struct demand *demand)
{
	bool all = slot->request.flags & GENERATE_FLAG_ALL_LOGITS;

	if (!slot->running)
		return false;
	*demand = (struct demand){.since = slot->since, .prompt = slot->next < slot->first};
	if (!demand->prompt && !may_decode(slot, ahead))
		return false;
	demand->columns =
	    demand->prompt ? slot->first - slot->next : (slot->speculate != 0 ? 1 + slot->guess_count : 1);
	if (demand->prompt && all)
		demand->columns = 1;
	demand->classified = !demand->prompt || all || slot->target != 0;
	demand->alone = (slot->sampling && !slots.own_candidates) || (slot->request.flags & GENERATE_FLAG_DUMP_LOGITS);
	return true;
}

static void add_column(struct slot *slot, struct program_step *step, uint32_t token)
{
	step->columns[step->count++] = (struct program_column){token, slot->next++, slot->segment};
}

static uint32_t fill_prompt(struct slot *slot, uint32_t granted, struct program_step *step)
{
	const uint32_t *ids = &slot->ids[slot->next - slot->request.position];

	for (uint32_t i = 0; i < granted; i++)
		add_column(slot, step, ids[i]);
	if (slot->next != slot->first || slot->target == 0)
		return 0;
	slot->classified++;
	return 1;
}

static uint32_t fill_guesses(struct slot *slot, uint32_t granted, struct program_step *step)
{
	if (slot->guess_count >= granted)
		slot->guess_count = granted - 1;
	add_column(slot, step, report_token_at(&slot->report, slot->next - slot->first));
	for (uint32_t i = 0; i < slot->guess_count; i++)
		add_column(slot, step, slot->guesses[i]);
	slot->proposed = false;
	slot->guessing = true;
	slot->done.guessed += slot->guess_count;
	slot->classified++;
	return 1 + slot->guess_count;
}

uint32_t slot_fill(struct slot *slot, uint32_t granted, bool argmax, struct program_step *step)
{
	uint32_t index = slot->next - slot->first;

	if (slot->next < slot->first)
		return fill_prompt(slot, granted, step);
	if (slot->speculate != 0)
		return fill_guesses(slot, granted, step);
	if (report_count(&slot->report) > index) {
		add_column(slot, step, report_token_at(&slot->report, index));
	} else {
		step->argmax = argmax;
		slot->awaits = !argmax;
		slot->column = step->count;
		step->awaited |= !argmax << step->count;
		add_column(slot, step, 0);
	}
	slot->classified++;
	return 1;
}

bool slot_filled(const struct slot *slot)
{
	return slot->target == 0 && slot->due == 0 && slot->next == slot->first;
}

/* A token has come, and was reported. If it is what was guessed, the next result is one, too; otherwise the rest of
 * the pass's are not: the rows that they came from are written anew by the passes that follow. */
static void verify(struct slot *slot, uint32_t token)
{
	lookup_add(&slot->lookup, token);
	if (slot->guess_right == 0)
		slot->done.passes++;
	if (slot->guess_right != slot->guess_count && token == slot->guesses[slot->guess_right]) {
		slot->guess_right++;
		return;
	}
	slot->skip = slot->guess_count - slot->guess_right;
	slot->guess_count = slot->guess_right = 0;
	slot->guessing = false;
	slot->classified = report_count(&slot->report);
	slot->next = slot->first + report_count(&slot->report) - 1;
}

void slot_token(struct slot *slot, uint32_t token, uint32_t cycles)
{
	report_token(&slot->report, token, cycles);
	if (slot->speculate != 0)
		verify(slot, token);
	else
		slot->done.passes++;
}

bool slot_stops(const struct slot *slot, uint32_t token)
{
	for (uint32_t i = 0; i < slot->request.stop_count; i++)
		if (slot->request.stops[i] == token)
			return true;
	return false;
}

void slot_end(struct slot *slot, enum reason reason)
{
	uint32_t count = report_count(&slot->report);

	if (count != 0)
		slot->kv_positions = slot->first + count - 1;
	else if (reason != REASON_ABORT)
		slot->kv_positions = slot->first;
	slot->done.reason = reason;
	slot->done.count = count;
	slot->done.position = slot->kv_positions;
	slot->done.end_cycles = llama2_cycles();
	slot->done.draws = slot->sampler.draws;
	slot->done.dropped = slot->sampler.dropped;
	slot->skip = slot->due;
	slot->running = false;
	total.prompt_tokens += slot->prompt_count;
	total.tokens += count;
	total.passes += slot->done.passes;
	total.guessed += slot->done.guessed;
	report_done(&slot->report, &slot->done);
}

void slot_stats(struct wire_stats *stats)
{
	stats->prompt_tokens = total.prompt_tokens;
	stats->tokens = total.tokens;
	stats->passes = total.passes;
	stats->guessed = total.guessed;
}

void slot_clear(void)
{
	total.prompt_tokens = total.tokens = total.passes = total.guessed = 0;
}
