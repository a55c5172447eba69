/* CRC-32 of IEEE 802.3, as zlib's crc32() and the core's CRC command compute it. */
#pragma once

#include <stdint.h>

/* Go on with a CRC (0 to begin) over more bytes. */
uint32_t crc32_update(uint32_t crc, const void *bytes, uint32_t size);
