/* The integer sampler of spec/llama2_spec/sampling.py, bit for bit: chooses among the candidates that the logit unit
 * kept. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "llama2.h"

/* Where the tokens of all positions are kept, those at most of the context and one: DRAM that only the CPU touches.
 * 0: there is no room; what a rewind over more than PROTOCOL_MAX_HISTORY positions would bring back is then no token.
 */
void sampler_install(uint32_t *history);
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
