/* Powers of two for the sampler, by the table that the core uses too. */
#include <generated/llama2_spec.h>

#include "exp2.h"

static const uint16_t base[] = EXP2_BASE;
static const int16_t slope[] = EXP2_SLOPE;

uint32_t exp2_logit_scale(uint64_t temperature)
{
	int exponent = 18 - 64;
	uint32_t quotient;

	for (; temperature >> 63 == 0; temperature <<= 1)
		exponent++;
	quotient = (NUMERICS_LOG2_E << 32) / (uint32_t)(temperature >> 32); /* 31 or 32 bits */
	for (; quotient >> 16 != 0; quotient >>= 1)
		exponent++;
	return quotient | ((uint32_t)exponent & 0xff) << 16;
}

int32_t exp2_logit(int32_t logit, uint32_t scale)
{
	/* 1 to 31, as temperatures are from 2**-16 to 64 * SAMPLING_MAX_TEMPERATURE: shifts by words, not by a
	 * library's 64 bits. */
	uint32_t shift = NUMERICS_LOG2_SHIFT - (int8_t)(scale >> 16);
	int64_t product = (int64_t)logit * (int32_t)(scale & 0xffff) + (1u << (shift - 1));
	int32_t high = product >> 32;
	uint32_t low = (uint32_t)high << (32 - shift) | (uint32_t)product >> shift;

	if (high >> shift == (int32_t)low >> 31)
		return low;
	return high < 0 ? INT32_MIN : INT32_MAX;
}

uint32_t exp2_weight(int32_t log2, int32_t maximum)
{
	int32_t whole = (log2 >> 16) - maximum; /* at most 1 */
	uint32_t index = (uint32_t)log2 >> 8 & 0xff;
	uint32_t mantissa, shift;

	if (whole < -16)
		return 0; /* mantissas are below 2**16: what rounds to 0 */
	mantissa = base[index] + ((slope[index] * (int32_t)(log2 & 0xff)) >> EXP2_SHIFT);
	shift = 1 - whole;
	return shift == 0 ? mantissa : (mantissa >> shift) + (mantissa >> (shift - 1) & 1);
}
