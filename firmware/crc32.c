/* CRC-32 of IEEE 802.3, a byte per table look-up. */
#include <generated/llama2_spec.h>

#include "crc32.h"

static const uint32_t table[256] = CRC32_TABLE;

uint32_t crc32_update(uint32_t crc, const void *bytes, uint32_t size)
{
	const uint8_t *p = bytes;
	const uint8_t *end = p + size;

	crc = ~crc;
	while (p != end)
		crc = table[(crc ^ *p++) & 0xff] ^ (crc >> 8);
	return ~crc;
}
