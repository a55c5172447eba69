/* CRC-32 of IEEE 802.3, four bits per table look-up: a table for bytes would be a kilobyte of ROM. */
#include <generated/llama2_spec.h>

#include "crc32.h"

static const uint32_t table[16] = CRC32_TABLE;

uint32_t crc32_update(uint32_t crc, const void *bytes, uint32_t size)
{
	const uint8_t *p = bytes;
	const uint8_t *end;

	if (size == 0)
		return crc; /* of nothing, which may be nowhere: no offset may be added to a null pointer */
	end = p + size;
	crc = ~crc;
	while (p != end) {
		crc ^= *p++;
		crc = table[crc & 15] ^ (crc >> 4);
		crc = table[crc & 15] ^ (crc >> 4);
	}
	return ~crc;
}
