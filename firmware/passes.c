/* Passes over the weights: planned for all slots that run, pushed ahead of execution, and their results handed out. */
#include "passes.h"

#include <string.h>

#include "hot.h"
#include "llama2.h"
#include "program.h"
#include "schedule.h"

/* A byte of the fastest line takes 160 cycles, and the receiver holds 16. */
#define RESULT_LOOKS 64u

#define DUE 32u /* results that may be under way: a power of two; the queue has fewer passes of the smallest model */

/* A result to come, in the order in which they come. */
struct due {
	uint8_t slot;
	bool token; /* it is one, unless the slot skips it */
	bool keep;  /* its candidates are wanted, and there until the next classifier */
	bool dump;  /* its logits are handed over before it */
};

static struct {
	struct schedule schedule;
	bool own_scales;
	uint32_t running;    /* generations */
	uint32_t count;      /* passes planned, and generations begun: what `since` is measured by */
	uint32_t latest;     /* the last pass */
	struct due due[DUE];
	uint32_t head, tail; /* next result to be planned, and to come; counting on */
	const struct slot *last;     /* whose result is the last one planned */

	struct program_step step;    /* that is being pushed */
	bool pushing;
	uint32_t awaiting;   /* columns of it whose token was not told yet; nothing is planned behind it until then */
	uint32_t untold;     /* those of them whose slot is sampled; for each comes a result that has candidates */
	uint32_t scales[PROGRAM_MAX_COLUMNS]; /* LOGIT_SCALE that its columns' candidates want */
	uint32_t written[PROGRAM_MAX_COLUMNS]; /* what the core has */
	uint32_t keeping;    /* results of it whose candidates are wanted */
	uint32_t kept;       /* such results of the steps that were pushed, until they are read */
	bool lasting;        /* a generation ended whose passes may be under way: they must not be dropped */
	bool unseen;         /* so may those of one that was stopped */
	uint32_t errors;
} passes;

void passes_install(uint32_t columns, bool own_scales)
{
	passes.schedule = (struct schedule){.columns = columns};
	passes.own_scales = own_scales;
	passes.running = passes.head = passes.tail = passes.kept = 0;
	passes.awaiting = passes.untold = 0;
	passes.last = 0;
	passes.pushing = passes.lasting = passes.unseen = false;
	memset(passes.written, 0, sizeof passes.written); /* no scale */
}

uint32_t passes_begin(void)
{
	(void)passes_errors();
	passes.running++;
	return passes.count++;
}

uint32_t passes_errors(void)
{
	uint32_t errors = llama2_errors();

	if (errors == 0)
		return passes.errors;
	llama2_errors_clear();
	passes.errors |= errors;
	for (uint32_t i = 0; i < slot_count(); i++)
		if (slot_at(i)->running)
			slot_at(i)->done.errors |= errors;
	return passes.errors;
}

void passes_errors_clear(void)
{
	(void)passes_errors();
	passes.errors = 0;
}

#define NOBODY (-1)

/* Its next token will be the last argmax: its last result is the last one planned, and no other slot's pass will come
 * between. */
static bool last_argmax(const struct slot *slot)
{
	return passes.running == 1 && passes.last == slot && passes.awaiting == 0 && !slot->sampling;
}

/* Its next column can be planned before its token is known: the core has it by itself, or it is a result of the last
 * pass. When that comes, the core has executed every EMBED before, so that the token can't be taken for one of theirs.
 */
static bool ahead(const struct slot *slot)
{
	return passes.awaiting == 0 &&
	       (last_argmax(slot) || (slot->due - slot->skip == 1 && slot->since == passes.latest));
}

/* The slots that could use columns now, in demands and their numbers; returns how many. Others could, once their
 * results are there: pause is the most passes that one of these was left out of already, or NOBODY. */
static uint32_t find_demands(struct demand *demands, uint8_t *numbers, int32_t *pause)
{
	uint32_t count = 0;

	*pause = NOBODY;
	for (uint32_t i = 0; i < slot_count(); i++) {
		struct slot *slot = slot_at(i);

		if (slot_demand(slot, ahead(slot), &demands[count]))
			numbers[count++] = i;
		else if (slot->running && slot->due != 0 && *pause < (int32_t)(passes.count - slot->since))
			*pause = passes.count - slot->since;
	}
	return count;
}

/* The one that runs. */
static struct slot *running_slot(void)
{
	uint32_t i = 0;

	while (!slot_at(i)->running)
		i++;
	return slot_at(i);
}

/* This demand, of which as much was granted, has logits. */
static bool has_logits(const struct demand *demand)
{
	return demand->classified && (!demand->prompt || demand->granted == demand->columns);
}

/* Say which results will come of a slot's columns, the step's last ones. Candidates are one column's, or of every
 * column. */
static void expect(struct slot *slot, const struct program_step *step, uint32_t columns, uint32_t tokens)
{
	uint32_t results = step->count - step->first < columns ? step->count - step->first : columns;

	for (; results != 0; results--) {
		passes.due[passes.head++ % DUE] = (struct due){slot->number, results <= tokens, slot->sampling,
							       step->dump};
		passes.scales[step->count - results] = slot->sampler.scale;
		passes.keeping += slot->sampling;
		slot->due++;
	}
	passes.last = slot;
}

/* Add a slot's columns to the step. */
static void add(struct slot *slot, const struct demand *demand, struct program_step *step)
{
	uint32_t before = step->count;
	uint32_t tokens = slot_fill(slot, demand->granted, last_argmax(slot), step);

	passes.awaiting += slot->awaits;
	passes.untold += slot->awaits && slot->sampling;
	if (has_logits(demand)) {
		if (!step->classify)
			step->first = demand->prompt ? step->count - 1 : before;
		step->classify = true;
		step->keep |= slot->sampling;
		step->dump = slot->request.flags & GENERATE_FLAG_DUMP_LOGITS;
		expect(slot, step, step->count - before, tokens);
	}
	if (slot->next >= slot->first)
		slot->since = passes.count;
}

/* Begin a step without columns. */
static void begin_step(void)
{
	struct program_step *step = &passes.step;

	/* Not all of it, which would take longer than the rest of planning: columns are valid below count. */
	step->count = step->first = 0;
	step->argmax = step->classify = step->keep = step->dump = false;
	step->awaited = 0;
	passes.keeping = 0;
	passes.latest = ++passes.count;
}

/* Begin to push the step. */
static bool begin_push(void)
{
	program_start(&passes.step);
	passes.pushing = true;
	return true;
}

/* Fill a step with what was granted: what has no logits before what has. */
static void fill(const struct demand *demands, const uint8_t *numbers, uint32_t count)
{
	begin_step();
	for (unsigned logits = 0; logits < 2; logits++)
		for (uint32_t i = 0; i < count; i++)
			if (demands[i].granted != 0 && has_logits(&demands[i]) == logits)
				add(slot_at(numbers[i]), &demands[i], &passes.step);
}

/* Begin the next pass of several generations, if there is one. */
COLD static bool plan_several(void)
{
	struct demand demands[PROTOCOL_MAX_SLOTS];
	uint8_t numbers[PROTOCOL_MAX_SLOTS];
	int32_t pause;
	bool led, prompts = true;
	uint32_t count, columns;

	if (passes.awaiting != 0)
		return false;
	count = find_demands(demands, numbers, &pause);
	if (count == 0 || pause > 0)
		return false;
	columns = schedule_fill(&passes.schedule, demands, count, &led);
	/* A pass with columns to spare waits for those that could use them. */
	if (columns < passes.schedule.columns && pause != NOBODY)
		return false;
	for (uint32_t i = 0; i < count; i++)
		prompts &= demands[i].prompt || demands[i].granted == 0;
	passes.schedule.prompts_led = led || (prompts && pause != NOBODY);
	fill(demands, numbers, count);
	return begin_push();
}

/* Begin the next pass, if there is one. One generation gets what it can use: the schedule, whose code would not stay in
 * the cache beside the rest of a token's way, has nothing to decide. */
static bool plan(void)
{
	struct demand demand;
	struct slot *slot;

	if (passes.running == 0 || passes.head - passes.tail > DUE - PROGRAM_MAX_COLUMNS)
		return false;
	if (passes.running != 1)
		return plan_several();
	slot = running_slot();
	if (!slot_demand(slot, ahead(slot), &demand))
		return false;
	demand.granted = demand.columns < passes.schedule.columns ? demand.columns : passes.schedule.columns;
	passes.schedule.prompts_led = false;
	begin_step();
	add(slot, &demand, &passes.step);
	return begin_push();
}

/* Give the core the scales of the step, if it may have them: unless others are in use. A core with one set of
 * candidates has one scale, whichever column it is for. */
static bool write_scales(bool in_use)
{
	for (uint32_t i = passes.step.first; i < passes.step.count; i++) {
		uint32_t place = passes.own_scales ? i : 0;

		if (passes.written[place] == passes.scales[i])
			continue;
		if (in_use)
			return false;
		llama2_model_write(LLAMA2_MODEL_LOGIT_SCALE + place, passes.scales[i]);
		passes.written[place] = passes.scales[i];
	}
	return true;
}

/* Push the rest of the step, as far as the queue takes it; its classifier not before the last one's candidates were
 * read, which it would overwrite, unless the step awaits each token that is chosen among them. */
static bool push(void)
{
	bool free = passes.kept == passes.untold;

	if (free && passes.step.keep)
		free = write_scales(passes.kept != 0);
	if (!program_push(free))
		return false;
	passes.kept += passes.keeping;
	passes.pushing = false;
	return true;
}

COLD static void feed(void)
{
	while (passes.pushing || plan())
		if (!push())
			return;
}

COLD static void end(struct slot *slot, enum reason reason)
{
	(void)passes_errors();
	slot_end(slot, reason);
	passes.running--;
}

/* Drop everything that is under way. */
COLD static void drop(void)
{
	llama2_abort();
	passes.pushing = passes.unseen = false;
	passes.tail = passes.head;
	passes.kept = 0;
	passes.awaiting = passes.untold = 0;
	passes.last = 0;
	for (uint32_t i = 0; i < slot_count(); i++) {
		slot_at(i)->due = slot_at(i)->skip = 0;
		slot_at(i)->awaits = false;
	}
}

/* The token that a column was planned without, if one was. */
static void tell(struct slot *slot, uint32_t token)
{
	if (!slot->awaits)
		return;
	llama2_token_write(slot->column, token);
	slot->awaits = false;
	passes.awaiting--;
	passes.untold -= slot->sampling;
}

COLD void passes_stop(struct slot *slot, enum reason reason)
{
	(void)passes_under_way();
	if (passes.running == 1 && !passes.lasting) {
		drop();
	} else {
		passes.unseen = true;
		tell(slot, 0); /* whatever comes of it is skipped */
	}
	end(slot, reason);
}

/* The token of a result, whose candidates the core holds until the next classifier. */
static uint32_t choose(const struct slot *slot, const struct llama2_result *result, bool keep)
{
	if (!keep || !slot->sampling || result->kept == 0 || result->kept > LLAMA2_MAX_CANDIDATES)
		return result->token;
	return sampler_choose(result);
}

static void take_token(struct slot *slot, const struct llama2_result *result, bool keep)
{
	uint32_t position = slot->first + report_count(&slot->report), token;
	bool stopped, last;

	sampler_select(&slot->sampler);
	token = choose(slot, result, keep);
	stopped = slot_stops(slot, token);
	last = stopped || report_count(&slot->report) + 1 == slot->target;
	if (!last)
		tell(slot, token);
	llama2_result_release();
	passes.kept -= keep;
	slot_token(slot, token, result->cycles);
	if (!last && passes.awaiting == 0 && (slot->sampling || slot->speculate != 0 || passes.running != 1))
		feed(); /* first; the sampler's book-keeping is done while the core works */
	sampler_remember(position, token); /* whatever made it: a later generation may look back */
	if (slot->sampling) {
		sampler_prepare(position + 1);
		sampler_account();
	}
	if (stopped)
		passes_stop(slot, REASON_STOP);
	else if (last)
		end(slot, position == slot_length() ? REASON_CONTEXT : REASON_LENGTH);
}

/* The logits that wait, of a result to come. */
COLD static void take_logits(struct slot *slot)
{
	int32_t logit;

	/* Sending takes long: what waits behind this result is another pass's. */
	while (!llama2_result_waits() && llama2_logit_take(&logit))
		if (slot->skip == 0)
			report_logit(&slot->report, logit);
}

static void take_result(void)
{
	struct due due = passes.due[passes.tail++ % DUE];
	struct slot *slot = slot_at(due.slot);
	struct llama2_result result;

	llama2_result_read(&result);
	slot->due--;
	if (due.token && slot->skip == 0) {
		take_token(slot, &result, due.keep);
		return;
	}
	slot->skip -= slot->skip != 0;
	passes.kept -= due.keep;
	llama2_result_release();
}

/* Take every result that waits: those of several columns come together. */
static void take_results(void)
{
	while (passes.head != passes.tail) {
		const struct due *due = &passes.due[passes.tail % DUE];

		if (due->dump)
			take_logits(slot_at(due->slot)); /* to this result's last */
		if (!llama2_result_waits())
			return;
		take_result();
	}
}

/* Columns of this slot are being pushed. */
static bool pushes(const struct slot *slot)
{
	for (uint32_t i = 0; passes.pushing && i < passes.step.count; i++)
		if (passes.step.columns[i].segment == slot->segment)
			return true;
	return false;
}

/* End those that only fill the cache. Commands are executed in order: where other slots keep the core busy, it is
 * enough that all are pushed. */
COLD static void end_filled(void)
{
	for (uint32_t i = 0; i < slot_count(); i++) {
		struct slot *slot = slot_at(i);

		if (!slot->running || !slot_filled(slot) || pushes(slot) || (passes.running == 1 && llama2_busy()))
			continue;
		passes.lasting |= passes.running != 1;
		end(slot, REASON_LENGTH);
	}
}

bool passes_under_way(void)
{
	if (!llama2_busy())
		passes.lasting = passes.unseen = false;
	return passes.head != passes.tail || passes.pushing || passes.lasting || passes.unseen;
}

HOT void passes_poll(void)
{
	if (passes.running == 0 && passes.head == passes.tail && !passes.pushing)
		return;
	feed();
	/* The core waits for the token that this result yields: no other poll comes between. */
	if (passes.awaiting != 0 && !passes.due[passes.tail % DUE].dump)
		llama2_result_await(RESULT_LOOKS);
	take_results();
	end_filled();
}
