/* Ref: Milakov & Gimelshein 2018, Online normalizer calculation for softmax; as llama2_spec.golden.attend. */
#include "attention.h"

#include <generated/llama2_spec.h>

#include "../exp2.h"
#include "functions.h"
#include "numeric.h"

/* What the positions so far amount to. */
static struct {
	int64_t values[ATTENTION_MAX_HEAD_DIM];
	int64_t mass;
	int32_t maximum;  /* of the scores, in whole log2 units, plus one */
	uint32_t top;     /* of V's exponents */
} sum;

static const void *row(const void *first, const struct attention_rows *rows, uint32_t position)
{
	return (const uint8_t *)first + position * rows->stride_bytes;
}

static int32_t score(const int16_t *q, const int16_t *k, uint32_t head_dim, uint32_t mantissa, int shift)
{
	int64_t dot = 0;

	for (uint32_t i = 0; i < head_dim; i++)
		dot += q[i] * k[i];
	return saturate(round_shift(dot * mantissa, shift > 0 ? shift : 0), 32);
}

/* Make room for a larger score, or for V of a larger exponent. */
static void raise(uint32_t head_dim, int32_t score, uint32_t exponent)
{
	uint32_t rise = (score >> 16) - sum.maximum >= NUMERICS_HEADROOM ? (score >> 16) + 1 - sum.maximum : 0;
	uint32_t lift = exponent > sum.top ? exponent - sum.top : 0;

	if (rise + lift == 0)
		return;
	sum.maximum += rise;
	sum.top += lift;
	sum.mass = floor_shift(sum.mass, rise);
	for (uint32_t i = 0; i < head_dim; i++)
		sum.values[i] = floor_shift(sum.values[i], rise + lift);
}

static void begin(uint32_t head_dim, int32_t score, uint32_t exponent)
{
	sum.maximum = (score >> 16) + 1;
	sum.top = exponent;
	sum.mass = 0;
	for (uint32_t i = 0; i < head_dim; i++)
		sum.values[i] = 0;
}

void attention(const int16_t *q, uint32_t q_exponent, uint32_t head_dim, const struct attention_rows *rows,
	       uint32_t score_scale, int64_t *out)
{
	uint32_t mantissa = score_scale & 0xffff;
	int base = 2 * NUMERICS_ROW_FRACTION - NUMERICS_SCORE_FRACTION - (int8_t)(score_scale >> 16) - (int)q_exponent;
	uint32_t r;
	int s;

	for (uint32_t t = 0; t < rows->count; t++) {
		const int16_t *v = row(rows->v, rows, t);
		uint32_t exponent = *(const uint8_t *)row(rows->v_exponent, rows, t);
		int shift = base - *(const uint8_t *)row(rows->k_exponent, rows, t);
		int32_t x = score(q, row(rows->k, rows, t), head_dim, mantissa, shift);
		uint32_t p;
		int32_t scaled; /* below 2**16: times v it fits 32 bits */

		if (t == 0)
			begin(head_dim, x, exponent);
		else
			raise(head_dim, x, exponent);
		p = exp2_weight(x, sum.maximum);
		sum.mass += p;
		scaled = round_shift(p, sum.top - exponent);
		for (uint32_t i = 0; i < head_dim; i++)
			sum.values[i] += scaled * v[i];
	}
	r = functions_reciprocal(sum.mass, &s);
	for (uint32_t i = 0; i < head_dim; i++) {
		int64_t a = s >= 0 ? round_shift(sum.values[i], s) : sum.values[i] * ((int64_t)1 << -s);

		out[i] = round_shift(a * r, 16) * ((int64_t)1 << sum.top);
	}
}
