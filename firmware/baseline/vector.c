/* Chunk by chunk, as the values come. */
#include "vector.h"

#include "numeric.h"

uint32_t vector_quantise(const int64_t *values, uint32_t n, int16_t *mantissas)
{
	uint64_t magnitude = 0;
	uint32_t bits, exponent;

	for (uint32_t i = 0; i < n; i++)
		magnitude |= values[i] ^ values[i] >> 63;
	bits = bit_length(magnitude);
	exponent = bits > 15 ? bits - 15 : 0;
	for (uint32_t i = 0; i < n; i++) {
		int64_t mantissa = round_shift(values[i], exponent);

		mantissas[i] = mantissa < INT16_MAX ? mantissa : INT16_MAX;
	}
	return exponent;
}

static void flush(struct vector *vector)
{
	uint32_t first = vector->size - NUMERICS_CHUNK;
	uint32_t exponent = vector_quantise(vector->pending, NUMERICS_CHUNK, vector->mantissas + first);

	vector->exponents[first / NUMERICS_CHUNK] = exponent;
	if (exponent > vector->largest)
		vector->largest = exponent;
}

void vector_begin(struct vector *vector, int unit)
{
	vector->size = 0;
	vector->largest = 0;
	vector->unit = unit;
}

void vector_push(struct vector *vector, int64_t value)
{
	vector->pending[vector->size++ % NUMERICS_CHUNK] = value;
	if (vector->size % NUMERICS_CHUNK == 0)
		flush(vector);
}

void vector_end(struct vector *vector)
{
	while (vector->size % NUMERICS_CHUNK != 0)
		vector_push(vector, 0);
}
