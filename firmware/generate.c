/* Generations: requests are checked and begun, each in a slot; what they become is passes.c's. */
#include "generate.h"

#include "passes.h"
#include "sampler.h"

static struct slot *latest; /* whose generation began last */
static uint32_t vocab_size;

void generate_install(const struct slot_division *division, uint32_t vocab, uint32_t columns, uint32_t sets)
{
	uint32_t most = columns < PROGRAM_MAX_COLUMNS ? columns : PROGRAM_MAX_COLUMNS;

	vocab_size = vocab;
	slot_install(division, vocab, most, sets > 1);
	passes_install(most, sets > 1);
	latest = slot_at(0);
}

static enum status refuse(struct wire_error *error, enum status status, enum subject subject, uint32_t value,
			  uint32_t limit)
{
	*error = (struct wire_error){subject, value, limit};
	return status;
}

/* Guesses are verified by the argmax; several columns' logits have neither candidates nor a way out. */
static bool may_speculate(const struct wire_generate *request)
{
	bool penalised = request->repetition_penalty > SAMPLING_ONE && request->repetition_window != 0;

	return request->temperature == 0 && request->temperature_low == 0 && !penalised &&
	       !(request->flags & GENERATE_FLAG_DUMP_LOGITS);
}

/* A number of the request, and the range it must be in. */
static enum status check_ranges(const struct wire_generate *request, uint32_t id_count, struct wire_error *error)
{
	const struct {
		enum subject subject;
		uint32_t value, least, most;
	} ranges[] = {
		{SUBJECT_PROMPT_COUNT, id_count, 1, PROTOCOL_MAX_PROMPT},
		{SUBJECT_STOP_COUNT, request->stop_count, 0, PROTOCOL_MAX_STOPS},
		{SUBJECT_TEMPERATURE, request->temperature, 0, SAMPLING_MAX_TEMPERATURE},
		{SUBJECT_TOP_P, request->top_p, 0, SAMPLING_ONE},
		{SUBJECT_MIN_P, request->min_p, 0, SAMPLING_ONE},
		{SUBJECT_PENALTY, request->repetition_penalty, SAMPLING_ONE, SAMPLING_MAX_PENALTY},
		{SUBJECT_WINDOW, request->repetition_window, 0, PROTOCOL_MAX_HISTORY},
		{SUBJECT_SPECULATE, request->speculate, 0, may_speculate(request) ? PROTOCOL_MAX_SPECULATE : 0},
	};

	for (unsigned i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
		if (ranges[i].value < ranges[i].least)
			return refuse(error, STATUS_BAD_VALUE, ranges[i].subject, ranges[i].value, ranges[i].least);
		if (ranges[i].value > ranges[i].most)
			return refuse(error, STATUS_BAD_VALUE, ranges[i].subject, ranges[i].value, ranges[i].most);
	}
	return STATUS_OK;
}

static enum status check(const struct slot *slot, const struct wire_generate *request, uint32_t id_count,
			 struct wire_error *error)
{
	enum status status = check_ranges(request, id_count, error);
	uint32_t cached = request->flags & GENERATE_FLAG_PRELOADED ? slot_length() : slot->kv_positions;

	if (status != STATUS_OK)
		return status;
	if (vocab_size == 0)
		return refuse(error, STATUS_NO_MODEL, SUBJECT_NONE, 0, 0);
	if (report_pending(&slot->report))
		return refuse(error, STATUS_BUSY, SUBJECT_NONE, 0, 0);
	if (request->position > cached)
		return refuse(error, STATUS_BAD_POSITION, SUBJECT_NONE, request->position, cached);
	if (id_count > slot_length() - request->position)
		return refuse(error, STATUS_CONTEXT_FULL, SUBJECT_NONE, request->position + id_count, slot_length());
	for (uint32_t i = 0; i < id_count; i++)
		if (request->ids[i] >= vocab_size)
			return refuse(error, STATUS_BAD_TOKEN, SUBJECT_NONE, request->ids[i], vocab_size);
	return STATUS_OK;
}

/* The slot of a generation of this session, or none. */
static struct slot *find(uint32_t sequence)
{
	for (uint32_t i = 0; i < slot_count(); i++)
		if (slot_at(i)->known && slot_at(i)->sequence == sequence)
			return slot_at(i);
	return 0;
}

bool generate_is(uint32_t sequence)
{
	return find(sequence) != 0;
}

enum status generate_begin(uint32_t sequence, const struct wire_generate *request, uint32_t id_count,
			   uint32_t *first, struct wire_error *error)
{
	uint32_t number = request->flags >> PROTOCOL_SLOT_SHIFT;
	struct slot *slot = find(sequence);
	enum status status = STATUS_OK;

	if (slot == 0) {
		if (number >= slot_count())
			return refuse(error, STATUS_BAD_VALUE, SUBJECT_SLOT, number, slot_count() - 1);
		slot = slot_at(number);
		status = check(slot, request, id_count, error);
		if (status != STATUS_OK)
			return status;
		slot_begin(slot, sequence, request, id_count, passes_begin());
		latest = slot;
	}
	*first = slot->first;
	return status;
}

enum status generate_resend(uint32_t sequence, const struct wire_resend *what, struct wire_error *error)
{
	struct slot *slot = what->generation != 0 ? find(what->generation) : latest;

	return report_resend(slot != 0 ? &slot->report : &latest->report, sequence, what, error);
}

void generate_poll(void)
{
	passes_poll();
	for (uint32_t i = 0; i < slot_count(); i++)
		report_poll(&slot_at(i)->report);
}

bool generate_running(void)
{
	for (uint32_t i = 0; i < slot_count(); i++)
		if (report_pending(&slot_at(i)->report))
			return true;
	return passes_under_way();
}

void generate_abort(uint32_t generation)
{
	for (uint32_t i = 0; i < slot_count(); i++)
		if (slot_at(i)->running && (generation == 0 || slot_at(i)->sequence == generation))
			passes_stop(slot_at(i), REASON_ABORT);
}

void generate_forget(void)
{
	generate_abort(0);
	for (uint32_t i = 0; i < slot_count(); i++) {
		report_forget(&slot_at(i)->report);
		slot_at(i)->known = false;
	}
}

void generate_stats(struct wire_stats *stats)
{
	slot_stats(stats);
	stats->errors = passes_errors();
	stats->draws = sampler_draws();
	stats->dropped = sampler_dropped();
	stats->resent = report_resent();
}

void generate_clear(void)
{
	slot_clear();
	sampler_clear();
}
