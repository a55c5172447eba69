/* A generation: prompt, then tokens, fed to the core ahead of execution; the KV cache is kept for the next one. */
#include "generate.h"

#include "llama2.h"
#include "lookup.h"
#include "program.h"
#include "report.h"
#include "sampler.h"

static struct {
	uint32_t vocab_size;
	uint32_t seq_len;
	uint32_t columns;
	uint32_t kv_positions;
} model;

static struct {
	bool running;
	uint32_t sequence;
	bool known;            /* sequence is one of this session */
	bool sampling;
	uint32_t ids[PROTOCOL_MAX_PROMPT];
	uint32_t prompt_count;
	uint32_t first;        /* position of the first generated token */
	uint32_t target;       /* most tokens: max_new, or what the context has room for */

	uint32_t next;         /* position of the next step to be planned */
	uint32_t classified;   /* tokens that the steps planned so far will yield */
	uint32_t skip;         /* results to come that are no tokens */
	uint32_t speculate;    /* tokens to guess in a step, at most */
	uint32_t guesses[PROGRAM_MAX_COLUMNS - 1]; /* of the step under way */
	uint32_t guess_count;
	uint32_t guess_right;  /* so many of them have turned out right */
	bool guessing;         /* a step that may hold guesses is under way: nothing is planned before its results */
	bool pushing;          /* a step is being pushed */
	struct wire_done done;
	uint32_t draws_before; /* the sampler's statistics when it began */
	uint64_t dropped_before;
	struct wire_generate request;
} run;

static struct {
	uint32_t errors, prompt_tokens, tokens, passes, guessed;
} total;

static void errors_take(void)
{
	uint32_t errors = llama2_errors();

	if (errors == 0)
		return;
	llama2_errors_clear();
	total.errors |= errors;
	run.done.errors |= errors;
}

void generate_install(uint32_t vocab_size, uint32_t seq_len, uint32_t columns, uint32_t *history)
{
	model.vocab_size = vocab_size;
	model.seq_len = seq_len;
	model.columns = columns < PROGRAM_MAX_COLUMNS ? columns : PROGRAM_MAX_COLUMNS;
	model.kv_positions = 0;
	run.known = false;
	report_forget();
	lookup_forget();
	sampler_install(history);
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

static enum status check(const struct wire_generate *request, uint32_t id_count, struct wire_error *error)
{
	enum status status = check_ranges(request, id_count, error);
	uint32_t cached = request->flags & GENERATE_FLAG_PRELOADED ? model.seq_len : model.kv_positions;

	if (status != STATUS_OK)
		return status;
	if (model.vocab_size == 0)
		return refuse(error, STATUS_NO_MODEL, SUBJECT_NONE, 0, 0);
	if (report_pending())
		return refuse(error, STATUS_BUSY, SUBJECT_NONE, 0, 0);
	if (request->position > cached)
		return refuse(error, STATUS_BAD_POSITION, SUBJECT_NONE, request->position, cached);
	if (id_count > model.seq_len - request->position)
		return refuse(error, STATUS_CONTEXT_FULL, SUBJECT_NONE, request->position + id_count, model.seq_len);
	for (uint32_t i = 0; i < id_count; i++)
		if (request->ids[i] >= model.vocab_size)
			return refuse(error, STATUS_BAD_TOKEN, SUBJECT_NONE, request->ids[i], model.vocab_size);
	return STATUS_OK;
}

static void begin_sampler(void)
{
	sampler_begin(&run.request);
	run.sampling = sampler_wanted();
	run.draws_before = sampler_draws();
	run.dropped_before = sampler_dropped();
	llama2_model_write(LLAMA2_MODEL_LOGIT_SCALE, sampler_logit_scale());
	for (uint32_t i = 0; i < run.prompt_count; i++)
		sampler_remember(run.request.position + i, run.ids[i]);
	sampler_prepare(run.first);
}

static void begin_speculation(void)
{
	uint32_t most = model.columns - 1;

	run.speculate = run.request.speculate < most ? run.request.speculate : most;
	run.guess_count = run.guess_right = 0;
	run.guessing = false;
	if (run.speculate == 0) {
		lookup_forget();
		return;
	}
	lookup_rewind(run.request.position);
	for (uint32_t i = 0; i < run.prompt_count; i++)
		lookup_add(run.ids[i]);
}

enum status generate_begin(uint32_t sequence, const struct wire_generate *request, uint32_t id_count,
			   struct wire_error *error)
{
	enum status status = check(request, id_count, error);
	bool all = request->flags & GENERATE_FLAG_ALL_LOGITS;
	uint32_t room;

	if (status != STATUS_OK)
		return status;
	run.request = *request;
	run.sequence = sequence;
	run.known = true;
	run.prompt_count = id_count;
	for (uint32_t i = 0; i < id_count; i++)
		run.ids[i] = request->ids[i];
	run.first = request->position + id_count;
	room = model.seq_len - run.first + 1; /* the last token needs no position of its own */
	run.target = request->max_new < room ? request->max_new : room;
	run.next = request->position;
	run.classified = 0;
	run.skip = all ? id_count - (run.target != 0) : 0;
	run.pushing = false;
	errors_take();
	run.done = (struct wire_done){.prompt_count = id_count, .start_cycles = llama2_cycles()};
	begin_sampler();
	begin_speculation();
	report_begin(sequence, run.first, all ? request->position : run.first - 1, model.vocab_size);
	/* From here on the rows from position on belong to the new prompt. */
	model.kv_positions = request->position;
	run.running = true;
	return STATUS_OK;
}

bool generate_is(uint32_t sequence)
{
	return run.known && run.sequence == sequence;
}

uint32_t generate_first(void)
{
	return run.first;
}

/* A column at the next position that is not planned yet. */
static void add_column(struct program_step *step, uint32_t token)
{
	step->columns[step->count++] = (struct program_column){.token = token, .position = run.next++};
}

/* The next step of the prompt: as many columns as the core has. */
static void plan_prompt(struct program_step *step)
{
	uint32_t at = run.next - run.request.position;
	uint32_t left = run.prompt_count - at;
	uint32_t count;
	bool all = run.request.flags & GENERATE_FLAG_ALL_LOGITS;

	count = all ? 1 : (left < model.columns ? left : model.columns);
	step->known = true;
	for (uint32_t i = 0; i < count; i++)
		add_column(step, run.ids[at + i]);
	step->first = count - 1;
	step->classify = all;
	if (count == left && run.target != 0) {
		step->classify = true;
		run.classified++;
	}
}

/* The next step of decoding: its token is the last argmax, or a sampled one that may not be known yet. */
static void plan_decode(struct program_step *step)
{
	uint32_t index = run.next - run.first;

	step->classify = true;
	step->argmax = !run.sampling;
	step->known = step->argmax || report_count() > index;
	add_column(step, !step->argmax && step->known ? report_token_at(index) : 0);
	run.classified++;
}

/* The next step of decoding with guesses, as many as context and request have room for. */
static void plan_guesses(struct program_step *step)
{
	uint32_t positions = model.seq_len - run.next - 1, tokens = run.target - report_count() - 1;
	uint32_t room = positions < tokens ? positions : tokens;

	step->known = step->classify = true;
	add_column(step, report_token_at(run.next - run.first));
	run.guess_count = lookup_guess(run.guesses, run.speculate < room ? run.speculate : room);
	for (uint32_t i = 0; i < run.guess_count; i++)
		add_column(step, run.guesses[i]);
	run.guess_right = 0;
	run.guessing = true;
	run.done.guessed += run.guess_count;
	run.classified++;
}

/* Where a step with guesses can be planned: its first token is known, and no other one is under way. */
static bool may_guess(void)
{
	return !run.guessing && report_count() > run.next - run.first;
}

/* Begin the next step, if there is one. */
static bool plan(void)
{
	struct program_step step = {0};

	if (run.next >= run.first && run.classified >= run.target)
		return false;
	if (run.next >= run.first && run.speculate != 0 && !may_guess())
		return false;
	step.keep = run.sampling;
	step.dump = run.request.flags & GENERATE_FLAG_DUMP_LOGITS;
	if (run.next < run.first)
		plan_prompt(&step);
	else if (run.speculate != 0)
		plan_guesses(&step);
	else
		plan_decode(&step);
	program_start(&step);
	run.pushing = true;
	return true;
}

static void feed(void)
{
	while (run.pushing || plan()) {
		if (!program_push())
			return;
		run.pushing = false;
	}
}

static void end(enum reason reason)
{
	uint32_t count = report_count();

	if (count != 0)
		model.kv_positions = run.first + count - 1;
	else if (reason != REASON_ABORT)
		model.kv_positions = run.first;
	errors_take();
	run.done.reason = reason;
	run.done.count = count;
	run.done.position = model.kv_positions;
	run.done.end_cycles = llama2_cycles();
	run.done.draws = sampler_draws() - run.draws_before;
	run.done.dropped = sampler_dropped() - run.dropped_before;
	total.prompt_tokens += run.prompt_count;
	total.tokens += count;
	total.passes += run.done.passes;
	total.guessed += run.done.guessed;
	run.running = false;
	report_done(&run.done);
}

static void stop(enum reason reason)
{
	llama2_abort();
	run.pushing = false;
	end(reason);
}

static bool is_stop(uint32_t token)
{
	for (uint32_t i = 0; i < run.request.stop_count; i++)
		if (run.request.stops[i] == token)
			return true;
	return false;
}

static uint32_t choose(const struct llama2_result *result)
{
	static struct llama2_candidate candidates[LLAMA2_MAX_CANDIDATES];

	if (!run.sampling || result->kept == 0 || result->kept > LLAMA2_MAX_CANDIDATES)
		return result->token;
	llama2_candidates_read(candidates, result->kept);
	return sampler_choose(result, candidates);
}

/* A token has come, and was reported. If it is what was guessed, the next result is one, too; otherwise the rest of
 * the step's are not: the rows that they came from are written anew by the steps that follow. */
static void verify(uint32_t token)
{
	lookup_add(token);
	if (run.guess_right == 0)
		run.done.passes++;
	if (run.guess_right != run.guess_count && token == run.guesses[run.guess_right]) {
		run.guess_right++;
		return;
	}
	run.skip = run.guess_count - run.guess_right;
	run.guess_count = run.guess_right = 0;
	run.guessing = false;
	run.classified = report_count();
	run.next = run.first + report_count() - 1;
}

static void take_token(const struct llama2_result *result)
{
	uint32_t position = run.first + report_count();
	uint32_t token = choose(result);
	bool stopped = is_stop(token);
	bool last = stopped || report_count() + 1 == run.target;

	llama2_result_release();
	report_token(token, result->cycles);
	if (run.speculate != 0)
		verify(token);
	else
		run.done.passes++;
	if ((run.sampling || run.speculate != 0) && !last) {
		/* First feed the core; the sampler's book-keeping is done while it works. */
		if (run.pushing && run.sampling)
			program_token(token);
		feed();
	}
	sampler_remember(position, token); /* whatever made it: a later generation may look back */
	if (run.sampling) {
		sampler_prepare(position + 1);
		sampler_account();
	}
	if (stopped)
		stop(REASON_STOP);
	else if (last)
		end(position == model.seq_len ? REASON_CONTEXT : REASON_LENGTH);
}

static void take_logits(void)
{
	int32_t logit;

	while (llama2_logit_take(&logit))
		report_logit(logit);
}

/* Take the result that waits, if there is room for its token; otherwise the link is slower than the core. */
static bool take_result(void)
{
	struct llama2_result result;

	if (!report_room())
		return false;
	llama2_result_read(&result);
	if (run.skip == 0) {
		take_token(&result);
		return true;
	}
	run.skip--;
	llama2_result_release();
	return true;
}

/* Take every result that waits: those of a step with guesses come together. */
static void take_results(void)
{
	bool dump = run.request.flags & GENERATE_FLAG_DUMP_LOGITS;

	do {
		if (dump)
			take_logits(); /* to this result's last */
	} while (run.running && llama2_result_waits() && take_result());
}

/* Nothing more will come of a request that only fills the cache. */
static bool filled(void)
{
	return run.target == 0 && run.skip == 0 && run.next == run.first && !run.pushing && !llama2_busy();
}

void generate_poll(void)
{
	if (run.running) {
		feed();
		take_results();
		if (run.running && filled())
			end(REASON_LENGTH);
	}
	report_poll();
}

bool generate_running(void)
{
	return report_pending();
}

void generate_abort(void)
{
	if (run.running)
		stop(REASON_ABORT);
}

void generate_forget(void)
{
	generate_abort();
	report_forget();
	run.known = false;
}

uint32_t generate_kv_positions(void)
{
	return model.kv_positions;
}

void generate_stats(struct wire_stats *stats)
{
	errors_take();
	stats->errors = total.errors;
	stats->draws = sampler_draws();
	stats->dropped = sampler_dropped();
	stats->prompt_tokens = total.prompt_tokens;
	stats->tokens = total.tokens;
	stats->passes = total.passes;
	stats->guessed = total.guessed;
	stats->resent = report_resent();
}

void generate_clear(void)
{
	total.prompt_tokens = total.tokens = total.passes = total.guessed = 0;
	sampler_clear();
}

void generate_clear_errors(void)
{
	errors_take();
	total.errors = 0;
}
