/* The decoder core, one function per thing it does: commands in, results out. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <generated/llama2_spec.h>

/* What the core was built with. */
struct llama2_limits {
	uint32_t version;
	uint32_t columns;
	uint32_t lanes;
	uint32_t candidates;
	uint32_t candidate_sets;
	uint32_t dim;
	uint32_t hidden_dim;
	uint32_t head_dim;
	uint32_t kv_dim;
	uint32_t heads;
	uint32_t vocab_size;
	uint32_t seq_len;
};

/* One classifier pass. */
struct llama2_result {
	uint32_t token;   /* argmax */
	uint32_t cycles;  /* cycle counter when the last logit was known */
	int32_t maximum;  /* reference of the mass */
	uint64_t mass;    /* of the whole vocabulary */
	uint32_t kept;    /* candidates */
	uint32_t column;  /* whose it is */
	uint32_t total;   /* sum of their weights */
};

struct llama2_candidate {
	uint32_t token;
	int32_t logit; /* Q14.18 */
};

/* A command, as it goes through the window. */
struct llama2_command {
	uint32_t words[4];
};

void llama2_init(void);
void llama2_limits(struct llama2_limits *limits);

/* Commands that may be pushed now; 0 while an abort drains. */
uint32_t llama2_queue_free(void);
/* Push one, as its four words; only after llama2_queue_free said that there is room. */
void llama2_push(uint32_t word0, uint32_t word1, uint32_t word2, uint32_t word3);
/* The token of a column, for the EMBED that awaits one; an abort drops it. */
void llama2_token_write(uint32_t column, uint32_t token);
/* A command is queued or executing. */
bool llama2_busy(void);
/* The core is busy, waits for nothing that firmware has to take, and has moved no beat since the last call. */
bool llama2_stands(void);
/* Drop all commands and results; waits until outstanding reads have drained. */
void llama2_abort(void);

/* The interrupt came: a result waits until llama2_result_release. */
bool llama2_result_waits(void);
/* Look for a result so many times, about 15 cycles each, which is sooner than its interrupt is. */
void llama2_result_await(uint32_t looks);
void llama2_result_read(struct llama2_result *result);
/* The functions that read candidates read those of this column from here on. */
void llama2_candidates_select(uint32_t column);
/* Its candidates, count of them, in no particular order. */
void llama2_candidates_read(struct llama2_candidate *candidates, uint32_t count);
/* The largest candidate that was not asked for here before: its weight below 2**LLAMA2_NEXT_PLACE, its place from there
 * on. Past the last one the weight is 0. */
uint32_t llama2_next(void);
#define LLAMA2_NEXT_PLACE 16
/* The token of the candidate at a place. */
uint32_t llama2_candidate_token(uint32_t place);
void llama2_result_release(void);
/* Take the logit that waits, if one does. */
bool llama2_logit_take(int32_t *logit);

/* Begin the CRC-32 of beats of DRAM from base; it is there once the core is not busy. Only while nothing else is
 * queued. */
void llama2_crc_begin(uint32_t base, uint32_t beats);
uint32_t llama2_crc(void);

/* Write a constant of the model (enum llama2_model), or a RoPE frequency. */
void llama2_model_write(uint32_t index, uint32_t value);
void llama2_rope_write(uint32_t index, uint32_t frequency);

/* Counters, all modulo 2**32. */
uint32_t llama2_cycles(void);
uint32_t llama2_stores(void);
uint32_t llama2_counter(uint32_t phase, uint32_t counter);
void llama2_counters_clear(void);

/* Sticky error flags, as in the register errors. */
uint32_t llama2_errors(void);
void llama2_errors_clear(void);

/* From the interrupt vector. */
void llama2_interrupt(void);
/* Interrupts taken since reset. */
uint32_t llama2_interrupts(void);
