/* A core and a board for firmware on a PC: commands are recorded and "executed" by a toy model. */
#include "fake.h"

#include <assert.h>
#include <string.h>

#include "board.h"
#include "crc32.h"
#include "exp2.h"
#include "image.h"
#include "sampler.h"
#include "../../soc/sim/flash_chip.h"

#define LINE 8192u
#define FIELD(command, name) \
	((command)->words[LLAMA2_COMMAND_##name##_WORD] >> LLAMA2_COMMAND_##name##_LOW & LLAMA2_COMMAND_##name##_MASK)

static uint8_t dram[FAKE_DRAM_BYTES] __attribute__((aligned(16)));
static uint8_t flash_bytes_[FAKE_FLASH_BYTES];
static struct flash_chip flash;
static uint32_t flash_offset;
static struct {
	uint8_t in[LINE], out[LINE];
	uint32_t in_head, in_tail, out_head, out_tail, out_room;
	uint32_t rate, host_rate;
} line;

/* What a byte becomes between ends of different rates. */
static uint8_t carried(uint8_t byte)
{
	return line.rate == line.host_rate ? byte : (uint8_t)(byte * 37 + 11) | 1;
}

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

uint32_t fake_feed(const uint8_t *bytes, uint32_t size)
{
	uint32_t n = 0;

	while (n < size && line.in_head - line.in_tail < LINE)
		line.in[line.in_head++ % LINE] = carried(bytes[n++]);
	return n;
}

uint32_t fake_drain(uint8_t *bytes, uint32_t size)
{
	uint32_t n = 0;

	while (n < size && line.out_tail != line.out_head)
		bytes[n++] = carried(line.out[line.out_tail++ % LINE]);
	return n;
}

uint32_t fake_waiting(void)
{
	return line.in_head - line.in_tail;
}

static void (*when_full)(void);

void fake_when_full(void (*pass)(void))
{
	when_full = pass;
}

void fake_transmitter(uint32_t room)
{
	line.out_room = room < LINE ? room : LINE;
}

void fake_rate(uint32_t rate)
{
	line.host_rate = rate;
}

void fake_wait(uint32_t cycles)
{
	core.cycles += cycles;
}

void fake_reset(uint32_t columns)
{
	memset(&core, 0, sizeof core);
	memset(&line, 0, sizeof line);
	line.out_room = LINE;
	line.rate = line.host_rate = FAKE_BAUD;
	core.columns = columns;
	core.sets = 1;
}

void fake_flash(uint32_t bytes, uint32_t offset)
{
	flash = (struct flash_chip){.bytes = flash_bytes_, .size = bytes, .id = {0x20, 0xba, 0}};
	while (bytes > 1u << flash.id[2])
		flash.id[2]++;
	flash_offset = offset;
	memset(flash_bytes_, 0xff, sizeof flash_bytes_);
}

uint8_t *fake_flash_bytes(void)
{
	return flash_bytes_;
}

void fake_flash_lock(void)
{
	flash.locked = true;
}

uint32_t fake_flash_misuse(void)
{
	return flash.misuse;
}

void fake_flash_cut(uint32_t seed)
{
	uint32_t size = flash.erasing ? CHIP_SECTOR : CHIP_PAGE;

	for (uint32_t i = 0; flash.looks != 0 && i < size; i++) {
		seed = seed * 1664525u + 1013904223u;
		if (flash.erasing)
			flash_bytes_[flash.target + i] |= seed >> 24;
		else if (flash.written[i])
			flash_bytes_[flash.target + i] &= flash.page[i] | seed >> 24;
	}
}

void fake_crc_looks(uint32_t looks)
{
	core.crc_looks = looks;
}

uint8_t *fake_dram(void)
{
	return dram;
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
	return (uint32_t *)(dram + (uint64_t)beat * BEAT_BYTES);
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
			core.crc = crc32_update(0, dram + 16 * FIELD(command, BASE), 16 * FIELD(command, BEATS));
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

/* board.h */

/* Byte lanes: one reads right in a window of delays at one bitslip, and elsewhere every bit is wrong. A fault of DRAM
 * shows with the next look at what DRAM holds. */
static struct {
	uint32_t bitslip, delay;      /* now */
	uint32_t good, first, last;   /* bitslip and delays at which it reads right */
	bool wrong;                   /* what dram holds is inverted */
	bool stuck;
} lanes[FAKE_LANES];
static uint32_t bad_row_at, bad_row_bits, dram_failed_at_start;

void fake_lane(uint32_t lane, uint32_t bitslip, uint32_t first, uint32_t last, uint32_t delay)
{
	lanes[lane].good = lanes[lane].bitslip = bitslip;
	lanes[lane].first = first;
	lanes[lane].last = last;
	lanes[lane].delay = delay;
}

void fake_lane_stuck(uint32_t lane)
{
	lanes[lane].stuck = true;
}

void fake_bad_row(uint32_t offset, uint32_t bits)
{
	bad_row_at = offset;
	bad_row_bits = bits;
}

static struct {
	uint32_t events, resets, alive;
} watch;

void fake_events(uint32_t events)
{
	watch.events = events;
}

uint32_t fake_resets(void)
{
	return watch.resets;
}

uint32_t fake_alive(void)
{
	return watch.alive;
}

uint32_t board_events(void)
{
	uint32_t events = watch.events;

	watch.events = 0;
	return events;
}

void board_reset(void)
{
	watch.resets++;
}

void board_alive(void)
{
	watch.alive++;
}

void fake_dram_fails(void)
{
	dram_failed_at_start = 1;
}

void board_init(void)
{
}

bool board_dram_train(void)
{
	return true;
}

bool board_dram_ok(void)
{
	return !dram_failed_at_start;
}

void board_describe(struct wire_board *board)
{
	board->simulated = 1;
	board->pin_bytes = 16;
	board->banks = 8;
	board->row_bytes = FAKE_ROW_BYTES;
}

uint32_t board_lanes(void)
{
	return FAKE_LANES;
}

uint32_t board_delays(void)
{
	return 8;
}

uint32_t board_bitslips(void)
{
	return 2;
}

void board_lane_read(uint32_t lane, uint32_t *bitslip, uint32_t *delay)
{
	*bitslip = lanes[lane].bitslip;
	*delay = lanes[lane].delay;
}

void board_lane_write(uint32_t lane, uint32_t bitslip, uint32_t delay)
{
	lanes[lane].bitslip = bitslip;
	lanes[lane].delay = delay;
}

uint32_t board_dram_bytes(void)
{
	return FAKE_DRAM_BYTES;
}

uint32_t board_clock_hz(void)
{
	return 100000000;
}

unsigned board_read(uint8_t *bytes, unsigned size)
{
	unsigned n = 0;

	while (n < size && line.in_tail != line.in_head)
		bytes[n++] = line.in[line.in_tail++ % LINE];
	return n;
}

unsigned board_write(const uint8_t *bytes, unsigned size)
{
	unsigned n = 0;

	if (when_full != NULL && line.out_head - line.out_tail >= line.out_room)
		when_full();
	while (n < size && line.out_head - line.out_tail < line.out_room)
		line.out[line.out_head++ % LINE] = bytes[n++];
	return n;
}

bool board_sent(void)
{
	return line.out_tail == line.out_head;
}

uint32_t board_baud_first(void)
{
	return FAKE_BAUD;
}

uint32_t board_baud(void)
{
	return line.rate;
}

uint32_t board_baud_maximum(void)
{
	return PROTOCOL_MAX_BAUD;
}

void board_baud_set(uint32_t rate)
{
	line.rate = rate;
}

uint8_t *board_dram(void)
{
	return dram;
}

void board_dram_publish(void)
{
}

void board_dram_refresh(void)
{
	for (uint32_t lane = 0; lane < FAKE_LANES; lane++) {
		bool right = lanes[lane].bitslip == lanes[lane].good && lanes[lane].delay >= lanes[lane].first &&
			     lanes[lane].delay <= lanes[lane].last;

		if (lanes[lane].stuck)
			for (uint32_t at = lane; at < sizeof dram; at += FAKE_LANES)
				dram[at] = 0xff;
		else if (right == lanes[lane].wrong)
			for (uint32_t at = lane; at < sizeof dram; at += FAKE_LANES)
				dram[at] = ~dram[at];
		lanes[lane].wrong = !lanes[lane].stuck && !right;
	}
	for (uint32_t at = 0; at < FAKE_ROW_BYTES && bad_row_bits != 0; at += 4)
		*(uint32_t *)(dram + bad_row_at + at) |= bad_row_bits;
}

uint32_t board_flash_offset(void)
{
	return flash_offset;
}

void board_flash_select(bool selected)
{
	assert(flash_offset != 0);
	flash_chip_select(&flash, selected);
}

uint32_t board_flash_exchange(uint32_t out, unsigned bytes)
{
	uint32_t in = 0;

	assert(flash_offset != 0);
	for (; bytes != 0; bytes--, out <<= 8) {
		in = in << 8 | (flash.size != 0 ? flash_chip_out(&flash) : 0xff);
		flash_chip_in(&flash, out >> 24);
	}
	return in;
}
