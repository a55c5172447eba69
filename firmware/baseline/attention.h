/* Attention of one query head over rows of the K/V cache, with a running maximum. */
#pragma once

#include <stdint.h>

#define ATTENTION_MAX_HEAD_DIM 128

/* A head's K and V in the cache: the first position's; the others follow at stride_bytes. */
struct attention_rows {
	const int16_t *k, *v;
	const uint8_t *k_exponent, *v_exponent;
	uint32_t stride_bytes;
	uint32_t count;
};

/* out: head_dim values of 48 bits. */
void attention(const int16_t *q, uint32_t q_exponent, uint32_t head_dim, const struct attention_rows *rows,
	       uint32_t score_scale, int64_t *out);
