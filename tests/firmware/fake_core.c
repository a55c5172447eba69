/* A core for firmware on a PC: commands are recorded and "executed" by a toy model. */
#include "fake.h"

#include <assert.h>
#include <string.h>

#include "board.h"
#include "crc32.h"
#include "exp2.h"
#include "image.h"
#include "sampler.h"

#define FIELD(command, name) \
	((command)->words[LLAMA2_COMMAND_##name##_WORD] >> LLAMA2_COMMAND_##name##_LOW & LLAMA2_COMMAND_##name##_MASK)

static struct {
	uint32_t columns, sets;
	struct llama2_command log[FAKE_LOG];
	uint32_t pushed, executed, aborted; /* commands, counted in the log */
	uint32_t model[32], rope[256];
	uint32_t tokens[8], positions[8], last_argmax;
	struct llama2_result results[LLAMA2_RESULT_DEPTH];
	struct llama2_candidate candidates[8][LLAMA2_MAX_CANDIDATES]; /* of the last classifier, by set */
	uint32_t results_head, results_tail;
	uint64_t popped[8]; /* of the candidates, by set */
	uint32_t selected;  /* set */
	uint32_t awaited[8], awaited_there;
	uint32_t script[FAKE_SCRIPT], script_count; /* what the model says by heart, by position */
	uint32_t rows[FAKE_SCRIPT];                 /* tokens that were embedded last, by position */
	uint32_t kv[8], seen[8]; /* by column: this layer's row, and what the layers so far made of its token */
	uint32_t dump_at, dump_size, dump_token, dump_position;
	uint32_t cycles, errors, crc, crc_looks;
} core;

void fake_wait(uint32_t cycles)
{
	core.cycles += cycles;
}

void fake_reset(uint32_t columns)
{
	fake_line_reset();
	memset(&core, 0, sizeof core);
	core.columns = columns;
	core.sets = 1;
}

void fake_crc_looks(uint32_t looks)
{
	core.crc_looks = looks;
}

uint32_t fake_log_count(void)
{
	return core.pushed;
}

uint32_t fake_aborted(void)
{
	return core.aborted;
}

void fake_core_errors(uint32_t errors)
{
	core.errors |= errors;
}

uint32_t fake_executed(void)
{
	return core.executed;
}

const struct llama2_command *fake_log(void)
{
	return core.log;
}

uint32_t fake_model_word(uint32_t index)
{
	return core.model[index];
}

uint32_t fake_rope_word(uint32_t index)
{
	return core.rope[index];
}

void fake_script(const uint32_t *tokens, uint32_t count)
{
	assert(count <= FAKE_SCRIPT);
	memcpy(core.script, tokens, count * sizeof *tokens);
	core.script_count = count;
}

/* What follows the row at position, if every row up to it is as in the script; otherwise no token. */
static uint32_t scripted(uint32_t position)
{
	if (position + 1 >= core.script_count ||
	    memcmp(core.rows, core.script, (position + 1) * sizeof *core.rows) != 0)
		return UINT32_MAX;
	return core.script[position + 1];
}

static bool attends;

void fake_attend(void)
{
	attends = true;
}

/* A row of the cache is a word in DRAM, at the first byte of where the core's row would be. */
static uint32_t *row_at(uint32_t beat)
{
	return (uint32_t *)(board_dram() + (uint64_t)beat * BEAT_BYTES);
}

static uint32_t mixed(uint32_t hash, uint32_t row)
{
	return (hash ^ row) * 16777619u;
}

/* A column sees the rows of its slot in DRAM, then those of its run, each of which is what earlier layers made of its
 * token: that of the first layer is the token. */
static void attend(const struct llama2_command *command)
{
	uint32_t column = FIELD(command, COLUMN), hash = core.kv[column] = core.seen[column];

	for (uint32_t at = 0; at < FIELD(command, BEATS); at += image_model()->row_beats)
		hash = mixed(hash, *row_at(FIELD(command, BASE) + at));
	for (uint32_t i = FIELD(command, FIRST); i <= column; i++)
		hash = mixed(hash, core.kv[i]);
	core.seen[column] = hash;
}

static void store(const struct llama2_command *command)
{
	uint32_t first = FIELD(command, FIRST);

	for (uint32_t i = first; i <= FIELD(command, COLUMN); i++)
		*row_at(FIELD(command, BASE) + (i - first) * image_model()->row_beats) = core.kv[i];
}

int32_t fake_logit(uint32_t token, uint32_t position, uint32_t id)
{
	uint32_t x = token * 2654435761u ^ position * 2246822519u ^ id * 3266489917u;

	x ^= x >> 15;
	x *= 2246822519u;
	x ^= x >> 13;
	return (int32_t)(x % (12u << 18)) - (6 << 18);
}

/* Keep the largest logits, as the logit unit does. */
static void keep(struct llama2_candidate *candidates, uint32_t *kept, struct llama2_candidate new)
{
	uint32_t least = 0;

	if (*kept < LLAMA2_MAX_CANDIDATES) {
		candidates[(*kept)++] = new;
		return;
	}
	for (uint32_t i = 1; i < *kept; i++)
		if (candidates[i].logit < candidates[least].logit)
			least = i;
	if (new.logit > candidates[least].logit)
		candidates[least] = new;
}

static const struct llama2_result *fake_result(void)
{
	return &core.results[core.results_tail % LLAMA2_RESULT_DEPTH];
}

/* The set of a column's candidates, and their LOGIT_SCALE. */
static uint32_t set_of(uint32_t column)
{
	return core.sets > 1 ? column : 0;
}

static uint32_t scale_of(uint32_t column)
{
	return core.model[LLAMA2_MODEL_LOGIT_SCALE + set_of(column)];
}

static uint32_t fake_weight(const struct llama2_candidate *candidate, const struct llama2_result *result)
{
	return exp2_weight(exp2_logit(candidate->logit, scale_of(result->column)), result->maximum);
}

/* The candidates of a result are all there, and weighed. */
static void weigh(struct llama2_result *result)
{
	uint32_t set = set_of(result->column);

	for (uint32_t i = 0; i < result->kept; i++)
		result->total += fake_weight(&core.candidates[set][i], result);
	core.popped[set] = 0;
}

void fake_present(uint32_t scale, int32_t maximum, uint64_t mass, const struct llama2_candidate *candidates,
		  uint32_t count)
{
	uint32_t slot = core.results_tail % LLAMA2_RESULT_DEPTH;

	core.model[LLAMA2_MODEL_LOGIT_SCALE] = scale;
	core.results[slot] = (struct llama2_result){.maximum = maximum, .mass = mass, .kept = count};
	memcpy(core.candidates[0], candidates, count * sizeof *candidates);
	weigh(&core.results[slot]);
}

void fake_candidate_sets(uint32_t sets)
{
	core.sets = sets;
}

uint32_t fake_choose(void)
{
	return sampler_choose(fake_result());
}

static void classify(const struct llama2_command *command, uint32_t column)
{
	uint32_t slot = core.results_head % LLAMA2_RESULT_DEPTH;
	struct llama2_result *result = &core.results[slot];
	uint32_t position = core.positions[column], vocab = FIELD(command, ROWS);
	uint32_t token = attends ? core.seen[column] : core.tokens[column];
	int32_t best = INT32_MIN;

	memset(core.candidates[set_of(column)], 0, sizeof core.candidates[0]);
	*result = (struct llama2_result){.column = column};
	for (uint32_t id = 0; id < vocab; id++) {
		int32_t logit = fake_logit(token, position, id);

		if (logit > best) {
			best = logit;
			result->token = id;
		}
		if (FIELD(command, KEEP))
			keep(core.candidates[set_of(column)], &result->kept, (struct llama2_candidate){id, logit});
	}
	result->maximum = exp2_logit(best, scale_of(column)) >> 16;
	for (uint32_t id = 0; id < vocab && FIELD(command, KEEP); id++)
		result->mass += exp2_weight(exp2_logit(fake_logit(token, position, id),
						       scale_of(column)),
					    result->maximum);
	weigh(result);
	if (scripted(position) != UINT32_MAX)
		result->token = scripted(position);
	result->cycles = core.cycles;
	core.last_argmax = result->token;
	core.results_head++;
	if (FIELD(command, DUMP)) {
		core.dump_at = 0;
		core.dump_size = vocab;
		core.dump_token = token;
		core.dump_position = position;
	}
}

void fake_execute(uint32_t count)
{
	for (; count != 0 && core.executed != core.pushed && core.dump_at == core.dump_size; count--) {
		const struct llama2_command *command = &core.log[core.executed % FAKE_LOG];
		uint32_t op = FIELD(command, OPCODE);

		uint32_t columns = FIELD(command, COLUMNS) + 1;

		if (op == LLAMA2_OP_MATVEC && FIELD(command, DEST) == LLAMA2_DEST_LOGITS &&
		    core.results_head - core.results_tail + columns - FIELD(command, COLUMN) > LLAMA2_RESULT_DEPTH)
			return;
		if (op == LLAMA2_OP_CRC && core.crc_looks != 0)
			return;
		if (op == LLAMA2_OP_EMBED && FIELD(command, AWAITED) &&
		    !(core.awaited_there >> FIELD(command, COLUMN) & 1))
			return;
		core.executed++;
		core.cycles += 100;
		if (op == LLAMA2_OP_EMBED) {
			uint32_t column = FIELD(command, COLUMN), position = FIELD(command, POSITION);

			core.tokens[column] = FIELD(command, LAST_TOKEN) ? core.last_argmax :
					      FIELD(command, AWAITED)    ? core.awaited[column] :
									   FIELD(command, TOKEN);
			if (FIELD(command, AWAITED))
				core.awaited_there &= ~(1u << column);
			core.positions[column] = position;
			core.seen[column] = core.tokens[column];
			if (position < FAKE_SCRIPT)
				core.rows[position] = core.tokens[column];
		} else if (op == LLAMA2_OP_ATTEND && attends) {
			attend(command);
		} else if (op == LLAMA2_OP_STORE && attends) {
			store(command);
		} else if (op == LLAMA2_OP_MATVEC && FIELD(command, DEST) == LLAMA2_DEST_LOGITS) {
			for (uint32_t column = FIELD(command, COLUMN); column != columns; column++)
				classify(command, column);
		} else if (op == LLAMA2_OP_CRC) {
			const uint8_t *first = board_dram() + 16 * FIELD(command, BASE);

			core.crc = crc32_update(0, first, 16 * FIELD(command, BEATS));
		}
	}
}

/* llama2.h */

void llama2_init(void)
{
}

void llama2_limits(struct llama2_limits *limits)
{
	*limits = (struct llama2_limits){LLAMA2_VERSION, core.columns, 16, LLAMA2_MAX_CANDIDATES,
					 core.sets, 512, 2048, 128, 512, 16, 32768, 4096};
}

uint32_t llama2_queue_free(void)
{
	return LLAMA2_QUEUE_DEPTH - (core.pushed - core.executed);
}

static void (*when_pushed)(const struct llama2_command *command);

void fake_when_pushed(void (*look)(const struct llama2_command *command))
{
	when_pushed = look;
}

void llama2_push(uint32_t word0, uint32_t word1, uint32_t word2, uint32_t word3)
{
	struct llama2_command command = {{word0, word1, word2, word3}};

	assert(llama2_queue_free() != 0);
	if (when_pushed != NULL)
		when_pushed(&command);
	core.log[core.pushed++ % FAKE_LOG] = command;
}

bool llama2_busy(void)
{
	/* Who waits for a CRC looks here until it is there. */
	if (core.pushed != core.executed && FIELD(&core.log[core.executed % FAKE_LOG], OPCODE) == LLAMA2_OP_CRC &&
	    (core.crc_looks == 0 || --core.crc_looks == 0))
		fake_execute(1);
	return core.pushed != core.executed;
}

bool llama2_stands(void)
{
	static uint32_t last;
	bool same = core.executed == last;

	last = core.executed;
	return same && core.pushed != core.executed && core.results_head == core.results_tail &&
	       core.dump_at == core.dump_size;
}

void llama2_abort(void)
{
	core.aborted += core.pushed - core.executed;
	core.executed = core.pushed;
	core.awaited_there = 0;
	memset(core.popped, 0, sizeof core.popped);
	core.results_tail = core.results_head;
	core.dump_at = core.dump_size = 0;
}

bool llama2_result_waits(void)
{
	/* A result comes when the last logit was taken. */
	bool dumping = core.dump_at != core.dump_size;

	return core.results_head - core.results_tail > dumping;
}

void llama2_result_await(uint32_t looks)
{
	(void)looks;
}

void llama2_result_read(struct llama2_result *result)
{
	assert(llama2_result_waits());
	*result = core.results[core.results_tail % LLAMA2_RESULT_DEPTH];
}

void llama2_candidates_select(uint32_t column)
{
	core.selected = set_of(column);
}

void llama2_candidates_read(struct llama2_candidate *candidates, uint32_t count)
{
	memcpy(candidates, core.candidates[core.selected], count * sizeof *candidates);
}

uint32_t llama2_candidate_token(uint32_t place)
{
	return core.candidates[core.selected][place].token;
}

uint32_t llama2_next(void)
{
	const struct llama2_candidate *all = core.candidates[core.selected];
	uint64_t *popped = &core.popped[core.selected];
	uint32_t best = LLAMA2_MAX_CANDIDATES;

	for (uint32_t i = 0; i < fake_result()->kept; i++)
		if (!(*popped >> i & 1) && (best == LLAMA2_MAX_CANDIDATES || all[i].logit > all[best].logit ||
					    (all[i].logit == all[best].logit && all[i].token < all[best].token)))
			best = i;
	if (best == LLAMA2_MAX_CANDIDATES)
		return 0;
	*popped |= 1ull << best;
	return best << LLAMA2_NEXT_PLACE | fake_weight(&all[best], fake_result());
}

void llama2_token_write(uint32_t column, uint32_t token)
{
	core.awaited[column] = token;
	core.awaited_there |= 1u << column;
}

void llama2_result_release(void)
{
	core.results_tail++;
}

bool llama2_logit_take(int32_t *logit)
{
	if (core.dump_at == core.dump_size)
		return false;
	*logit = fake_logit(core.dump_token, core.dump_position, core.dump_at++);
	return true;
}

void llama2_crc_begin(uint32_t base, uint32_t beats)
{
	llama2_push(LLAMA2_OP_CRC | LLAMA2_PHASE_OTHER << LLAMA2_COMMAND_PHASE_LOW, 0, base, beats);
}

uint32_t llama2_crc(void)
{
	assert(core.pushed == core.executed);
	return core.crc;
}

void llama2_model_write(uint32_t index, uint32_t value)
{
	core.model[index] = value;
}

void llama2_rope_write(uint32_t index, uint32_t frequency)
{
	core.rope[index] = frequency;
}

uint32_t llama2_cycles(void)
{
	return core.cycles;
}

uint32_t llama2_stores(void)
{
	return 0;
}

uint32_t llama2_counter(uint32_t phase, uint32_t counter)
{
	return 100 * phase + counter;
}

void llama2_counters_clear(void)
{
}

uint32_t llama2_errors(void)
{
	return core.errors;
}

void llama2_errors_clear(void)
{
	core.errors = 0;
}

uint32_t llama2_interrupts(void)
{
	return core.results_head;
}
