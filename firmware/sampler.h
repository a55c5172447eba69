/* The integer sampler of spec/llama2_spec/sampling.py, bit for bit: chooses among the candidates that the logit unit
 * kept. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "llama2.h"

#define SAMPLER_RECENT_WORDS 32u /* bits of the filter in front of the history's search */

/* What a slot's generations have of their own; its members are sampler.c's. */
struct sampler {
	const struct wire_generate *options;
	uint64_t random;
	uint64_t temperature;   /* Q16.48 */
	uint32_t scale;
	uint32_t near_scale;    /* of differences from the largest logit */
	int32_t reciprocal;     /* of the penalty, Q16.16 */
	bool penalising;
	uint32_t *kept;         /* the tokens by position */
	uint32_t end;           /* position after the last one remembered */
	uint32_t history[PROTOCOL_MAX_HISTORY]; /* the latest ones, by position modulo its length */
	uint32_t recent_from;   /* the positions that count: recent_from to recent_to - 1 */
	uint32_t recent_to;
	uint32_t recent[SAMPLER_RECENT_WORDS];
	uint32_t draws;         /* of this generation, as sampler_draws and sampler_dropped */
	uint64_t dropped;
};

/* Where the tokens of all positions are kept, those at most of the slot and one: DRAM that only the CPU touches.
 * 0: there is no room; what a rewind over more than PROTOCOL_MAX_HISTORY positions would bring back is then no token.
 */
void sampler_install(struct sampler *sampler, uint32_t *history);
/* The functions below are about this slot's. A choice, from sampler_choose to sampler_account, is one slot's. */
void sampler_select(struct sampler *sampler);
/* Begin a generation: options as on the wire, seeded anew; tokens before its position are those that were remembered.
 */
void sampler_begin(const struct wire_generate *options);
/* Whether candidates are needed at all; otherwise the argmax is the token. */
bool sampler_wanted(void);
/* The core's LOGIT_SCALE for the temperature. */
uint32_t sampler_logit_scale(void);

/* The token at a position, for the repetition penalty of this generation and of later ones. */
void sampler_remember(uint32_t position, uint32_t token);
/* Get ready to choose the token at a position; all before it are remembered. */
void sampler_prepare(uint32_t position);
/* Choose among the result's candidates, at least one, which it reads from the core. */
uint32_t sampler_choose(const struct llama2_result *result);
/* Add what the candidate limit dropped in the last choice to the statistics; may wait until the core is fed again. */
void sampler_account(void);

/* Statistics since sampler_clear: choices, and their dropped probability (2**32 is 1.0). */
uint32_t sampler_draws(void);
uint64_t sampler_dropped(void);
void sampler_clear(void);
