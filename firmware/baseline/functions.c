/* Look-up and linear interpolation: base[i] + (slope[i] * t >> shift). */
#include "functions.h"

#include <generated/llama2_spec.h>

#include "numeric.h"

#define SILU_NEAR (8 << NUMERICS_ROW_FRACTION)  /* below, segments are 2**-7 wide; above, 2**-4 */
#define SILU_END (16 << NUMERICS_ROW_FRACTION)

static const uint32_t reciprocal_base[] = RECIPROCAL_BASE;
static const int16_t reciprocal_slope[] = RECIPROCAL_SLOPE;
static const uint32_t rsqrt_base[] = RSQRT_BASE;
static const int16_t rsqrt_slope[] = RSQRT_SLOPE;
static const uint32_t sine_base[] = SINE_BASE;
static const int16_t sine_slope[] = SINE_SLOPE;
static const uint32_t sag_base[] = SILU_SAG_BASE;
static const int16_t sag_slope[] = SILU_SAG_SLOPE;

uint32_t functions_reciprocal(uint64_t x, int *shift)
{
	uint32_t n = bit_length(x);
	uint32_t m = n >= 22 ? x >> (n - 22) : x << (22 - n);
	uint32_t i = m >> 12 & 0x1ff;

	*shift = (int)n - 16;
	return reciprocal_base[i] + (reciprocal_slope[i] * (int32_t)(m & 0xfff) >> RECIPROCAL_SHIFT);
}

/* x >> shift, of which the result's 32 bits are wanted. */
static uint32_t wide_shift(struct wide x, uint32_t shift)
{
	if (shift >= 64)
		return x.high >> (shift - 64);
	return (x.low >> shift) | (shift > 32 ? (uint64_t)x.high << (64 - shift) : 0);
}

uint32_t functions_rsqrt(struct wide x, int *exponent)
{
	uint32_t n = x.high != 0 ? 64 + bit_length(x.high) : bit_length(x.low);
	uint32_t half = (n + 1) / 2; /* x = f * 4**half, f in [1/4, 1), of 22 fraction bits */
	uint32_t f = 2 * half >= 22 ? wide_shift(x, 2 * half - 22) : (uint32_t)(x.low << (22 - 2 * half));
	uint32_t i = f >> 12;

	*exponent = -15 - (int)half;
	return rsqrt_base[i] + (rsqrt_slope[i] * (int32_t)(f & 0xfff) >> RSQRT_SHIFT);
}

int32_t functions_sine(uint32_t phase)
{
	uint32_t quadrant = phase >> 30;
	uint32_t x = quadrant & 1 ? 0x3fffffff - (phase & 0x3fffffff) : phase & 0x3fffffff;
	uint32_t i = x >> 21;
	int32_t y = sine_base[i] + (sine_slope[i] * (int32_t)(x >> 9 & 0xfff) >> SINE_SHIFT);

	return quadrant & 2 ? -y : y;
}

int32_t functions_silu(int32_t gate)
{
	uint32_t z = gate < 0 ? 0u - (uint32_t)gate : (uint32_t)gate;
	uint32_t i, t;

	if (z >= SILU_END)
		z = SILU_END - 1;
	if (z < SILU_NEAR) {
		i = z >> 11;
		t = (z & 0x7ff) << 3;
	} else {
		i = 1024 + ((z - SILU_NEAR) >> 14);
		t = z & 0x3fff;
	}
	return (gate > 0 ? gate : 0) - (int32_t)(sag_base[i] + (sag_slope[i] * (int32_t)t >> SILU_SAG_SHIFT));
}
