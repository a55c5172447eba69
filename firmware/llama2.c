/* The decoder core's registers and window; no other file touches them. */
#include <generated/csr.h>
#include <generated/mem.h>
#include <irq.h>

#include "llama2.h"

#define FIELD(value, name) ((value) >> name##_LOW & name##_MASK)
#define BIT(name) (1u << name##_LOW)
#define WINDOW ((volatile uint32_t *)LLAMA2_BASE)
#define WORD(offset) (WINDOW[(offset) / 4])
#define IRQ_ENABLE BIT(LLAMA2_CONTROL_IRQ_ENABLE)

static volatile bool wake;
static volatile uint32_t interrupts;

void llama2_init(void)
{
	llama2_ev_enable_write(1);
	llama2_abort();
	llama2_errors_clear();
	llama2_counters_clear();
}

void llama2_limits(struct llama2_limits *limits)
{
	uint32_t geometry = llama2_geometry_read();

	limits->version = FIELD(geometry, LLAMA2_GEOMETRY_VERSION);
	limits->columns = FIELD(geometry, LLAMA2_GEOMETRY_COLUMNS);
	limits->lanes = FIELD(geometry, LLAMA2_GEOMETRY_LANES);
	limits->candidates = FIELD(geometry, LLAMA2_GEOMETRY_CANDIDATES);
	limits->candidate_sets = FIELD(geometry, LLAMA2_GEOMETRY_CANDIDATE_SETS);
	limits->dim = llama2_max_dim_read();
	limits->hidden_dim = llama2_max_hidden_dim_read();
	limits->head_dim = llama2_max_head_dim_read();
	limits->kv_dim = llama2_max_kv_dim_read();
	limits->heads = llama2_max_heads_read();
	limits->vocab_size = llama2_max_vocab_size_read();
	limits->seq_len = llama2_max_seq_len_read();
}

uint32_t llama2_queue_free(void)
{
	uint32_t status = llama2_status_read();

	return FIELD(status, LLAMA2_STATUS_ABORTING) ? 0 : FIELD(status, LLAMA2_STATUS_QUEUE_FREE);
}

void llama2_push(uint32_t word0, uint32_t word1, uint32_t word2, uint32_t word3)
{
	volatile uint32_t *window = &WORD(LLAMA2_WINDOW_COMMAND);

	window[0] = word0;
	window[1] = word1;
	window[2] = word2;
	window[3] = word3;
}

bool llama2_busy(void)
{
	return FIELD(llama2_status_read(), LLAMA2_STATUS_BUSY);
}

bool llama2_stands(void)
{
	static uint32_t last;
	uint32_t status = llama2_status_read();
	uint32_t moved = FIELD(status, LLAMA2_STATUS_QUEUE_FREE);
	bool same;

	for (uint32_t phase = 0; phase < LLAMA2_PHASES; phase++)
		moved += llama2_counter(phase, LLAMA2_COUNTER_BEATS);
	same = moved == last;
	last = moved;
	return same && FIELD(status, LLAMA2_STATUS_BUSY) &&
	       !(status & (BIT(LLAMA2_STATUS_RESULT_VALID) | BIT(LLAMA2_STATUS_LOGIT_VALID)));
}

void llama2_abort(void)
{
	uint32_t status;
	int32_t logit;

	llama2_control_write(BIT(LLAMA2_CONTROL_ABORT));
	do {
		while (llama2_logit_take(&logit))
			;
		status = llama2_status_read();
		if (FIELD(status, LLAMA2_STATUS_RESULT_VALID))
			WORD(LLAMA2_WINDOW_RESULT) = 0;
	} while (status & (BIT(LLAMA2_STATUS_BUSY) | BIT(LLAMA2_STATUS_ABORTING) | BIT(LLAMA2_STATUS_RESULT_VALID)));
	wake = false;
	llama2_control_write(IRQ_ENABLE);
}

void llama2_interrupt(void)
{
	/* The level stays until the result is taken: look away until then. */
	llama2_control_write(0);
	wake = true;
	interrupts++;
}

uint32_t llama2_interrupts(void)
{
	return interrupts;
}

bool llama2_result_waits(void)
{
	return wake;
}

void llama2_result_await(uint32_t looks)
{
	irq_setie(0);
	while (!wake && looks-- != 0)
		if (FIELD(llama2_status_read(), LLAMA2_STATUS_RESULT_VALID)) {
			wake = true;
			llama2_control_write(0);
		}
	irq_setie(1);
}

void llama2_result_read(struct llama2_result *result)
{
	volatile uint32_t *words = &WORD(LLAMA2_WINDOW_RESULT);

	result->token = words[LLAMA2_RESULT_TOKEN];
	result->cycles = words[LLAMA2_RESULT_CYCLES];
	result->maximum = words[LLAMA2_RESULT_MAXIMUM];
	result->mass = words[LLAMA2_RESULT_MASS_LO] | (uint64_t)words[LLAMA2_RESULT_MASS_HI] << 32;
	result->kept = words[LLAMA2_RESULT_KEPT] & 0xff;
	result->column = words[LLAMA2_RESULT_KEPT] >> 8;
	result->total = words[LLAMA2_RESULT_TOTAL];
}

void llama2_candidates_select(uint32_t column)
{
	WORD(LLAMA2_WINDOW_CANDIDATES) = column;
}

void llama2_candidates_read(struct llama2_candidate *candidates, uint32_t count)
{
	volatile uint32_t *words = &WORD(LLAMA2_WINDOW_CANDIDATES);

	for (; count != 0; count--, candidates++, words += 2) {
		candidates->token = words[0];
		candidates->logit = words[1];
	}
}

uint32_t llama2_next(void)
{
	return WORD(LLAMA2_WINDOW_NEXT);
}

uint32_t llama2_candidate_token(uint32_t place)
{
	return WORD(LLAMA2_WINDOW_CANDIDATES + 8 * place);
}

void llama2_token_write(uint32_t column, uint32_t token)
{
	WORD(LLAMA2_WINDOW_TOKEN + 4 * column) = token;
}

void llama2_result_release(void)
{
	WORD(LLAMA2_WINDOW_RESULT) = 0;
	wake = false;
	llama2_control_write(IRQ_ENABLE);
}

bool llama2_logit_take(int32_t *logit)
{
	if (!FIELD(llama2_status_read(), LLAMA2_STATUS_LOGIT_VALID))
		return false;
	*logit = WORD(LLAMA2_WINDOW_LOGIT);
	WORD(LLAMA2_WINDOW_LOGIT) = 0;
	return true;
}

void llama2_crc_begin(uint32_t base, uint32_t beats)
{
	llama2_push(LLAMA2_OP_CRC | LLAMA2_PHASE_OTHER << LLAMA2_COMMAND_PHASE_LOW, 0, base, beats);
}

uint32_t llama2_crc(void)
{
	return llama2_crc_read();
}

void llama2_model_write(uint32_t index, uint32_t value)
{
	WORD(LLAMA2_WINDOW_MODEL + 4 * index) = value;
}

void llama2_rope_write(uint32_t index, uint32_t frequency)
{
	WORD(LLAMA2_WINDOW_ROPE + 4 * index) = frequency;
}

uint32_t llama2_cycles(void)
{
	return llama2_cycles_read();
}

uint32_t llama2_stores(void)
{
	return llama2_stores_read();
}

uint32_t llama2_counter(uint32_t phase, uint32_t counter)
{
	return WORD(LLAMA2_WINDOW_COUNTERS + 4 * (8 * phase + counter));
}

void llama2_counters_clear(void)
{
	llama2_control_write(BIT(LLAMA2_CONTROL_CLEAR_COUNTERS) | IRQ_ENABLE);
}

uint32_t llama2_errors(void)
{
	return llama2_errors_read();
}

void llama2_errors_clear(void)
{
	llama2_control_write(BIT(LLAMA2_CONTROL_CLEAR_ERRORS) | IRQ_ENABLE);
}
