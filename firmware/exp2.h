/* Powers of two for the sampler, by the table that the core uses too: spec/llama2_spec/tables.py,
 * spec/llama2_spec/sampling.py. */
#pragma once

#include <stdint.h>

/* The core's LOGIT_SCALE, log2(e) / temperature; the temperature is Q16.48 and not 0. */
uint32_t exp2_logit_scale(uint64_t temperature);
/* A logit (Q14.18) times LOGIT_SCALE, in Q16.16 log2 units. */
int32_t exp2_logit(int32_t logit, uint32_t scale);
/* 2**(log2 - maximum); log2 is Q16.16 and less than 2 above maximum, an integer; 2**14 is 1.0. */
uint32_t exp2_weight(int32_t log2, int32_t maximum);
