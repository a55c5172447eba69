/* The functions of spec/llama2_spec/tables.py, by the same tables. */
#pragma once

#include <stdint.h>

/* A non-negative integer of 96 bits: a sum of squares. */
struct wide {
	uint64_t low;
	uint32_t high;
};

/* 1/x as mantissa * 2**-(31 + *shift); x is at least 1. */
uint32_t functions_reciprocal(uint64_t x, int *shift);
/* 1/sqrt(x) as mantissa * 2**(*exponent); x is at least 1. */
uint32_t functions_rsqrt(struct wide x, int *exponent);
/* Sine of a phase in turns / 2**32, 16 fraction bits; a quarter turn more gives the cosine. */
int32_t functions_sine(uint32_t phase);
/* SiLU of Q14.18, to Q14.18. */
int32_t functions_silu(int32_t gate);
