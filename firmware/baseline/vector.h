/* Quantised vectors: 16-bit mantissas, an exponent per chunk. */
#pragma once

#include <stdint.h>

#include <generated/llama2_spec.h>

#define VECTOR_MAX 4096 /* the largest hidden_dim that is decoded; static, so it bounds SRAM */

/* Value i is mantissas[i] * 2**(exponents[i / NUMERICS_CHUNK] + unit); padded with zeros to whole chunks. */
struct vector {
	int16_t mantissas[VECTOR_MAX];
	uint8_t exponents[VECTOR_MAX / NUMERICS_CHUNK];
	uint32_t size;    /* pushed so far */
	uint8_t largest;  /* of the exponents */
	int unit;
	int64_t pending[NUMERICS_CHUNK];
};

/* Quantise n values of 48 bits with the smallest exponent that holds them, which is returned. */
uint32_t vector_quantise(const int64_t *values, uint32_t n, int16_t *mantissas);

void vector_begin(struct vector *vector, int unit);
/* Append a value of 48 bits. */
void vector_push(struct vector *vector, int64_t value);
/* No more values: quantise a chunk that is not full. */
void vector_end(struct vector *vector);
