/* The roundings of spec/llama2_spec/numerics.py, under the same names. */
#pragma once

#include <stdint.h>

static inline int64_t floor_shift(int64_t x, uint32_t shift)
{
	return x >> (shift < 63 ? shift : 63);
}

static inline int64_t round_shift(int64_t x, uint32_t shift)
{
	if (shift == 0)
		return x;
	if (shift > 63)
		shift = 63;
	return (x >> shift) + (x >> (shift - 1) & 1);
}

/* Clamp to a signed field of bits. */
static inline int64_t saturate(int64_t x, uint32_t bits)
{
	int64_t most = ((int64_t)1 << (bits - 1)) - 1;

	return x > most ? most : (x < -most - 1 ? -most - 1 : x);
}

/* Bits of a non-negative integer; 0 for 0. */
static inline uint32_t bit_length(uint64_t x)
{
	uint32_t high = x >> 32;

	if (high != 0)
		return 64 - __builtin_clz(high);
	return (uint32_t)x != 0 ? 32 - __builtin_clz((uint32_t)x) : 0;
}
