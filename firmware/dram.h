/* DRAM at start: trained, tested, and what it held before a reset put right. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Train DRAM and test it, for so many rounds of 1.5 KiB; false if that failed. What was in DRAM stays there, and an image that
 * DRAM has kept through a reset is whole again. */
bool dram_start(uint32_t rounds);
/* Remember the beginning of the image that is in DRAM now, for after a reset. */
void dram_keep(void);
