/* An input of the fuzzer, taken byte by byte; what lies behind its end is zero. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct input {
	const uint8_t *data;
	size_t left;
};

static inline uint8_t input_byte(struct input *in)
{
	if (in->left == 0)
		return 0;
	in->left--;
	return *in->data++;
}

static inline uint32_t input_below(struct input *in, uint32_t limit)
{
	uint32_t value = input_byte(in);

	if (limit > 256)
		value |= (uint32_t)input_byte(in) << 8;
	return limit != 0 ? value % limit : 0;
}

/* A number as they are found at the edges of checks, or any. */
static inline uint32_t input_word(struct input *in)
{
	static const uint32_t edges[] = {0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 99, 100, 127, 128, 207, 208, 209,
					 255, 256, 257, 511, 512, 1008, 1020, 1024, 2047, 2048, 4095, 4096, 32768,
					 65535, 65536, 65537, 0x100000, (4u << 20) - 1024, (4u << 20) - 4, 4u << 20,
					 64u << 20, 0x15555556, 0x20000000, 0x3fffffff, 0x40000000, 0x7fffffff,
					 0x80000000, 0xfffff800, 0xfffffff0, 0xfffffffe, 0xffffffff};
	uint8_t kind = input_byte(in);

	if (kind < 160)
		return edges[kind % (sizeof edges / sizeof edges[0])];
	if (kind < 224)
		return input_byte(in);
	return input_byte(in) | input_byte(in) << 8 | input_byte(in) << 16 | (uint32_t)input_byte(in) << 24;
}
