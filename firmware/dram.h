/* DRAM: trained, tested, and what it held before a reset put right. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <generated/llama2_spec.h>

/* Train DRAM and test it, for so many rounds of 1.5 KiB; false if that failed. What was in DRAM stays there, and an
 * image that DRAM has kept through a reset is whole again. */
bool dram_start(uint32_t rounds);
/* Remember the beginning of the image that is in DRAM now, for after a reset. */
void dram_keep(void);

/* Where and how the test at start failed; zeros if it did not. */
void dram_failed(struct wire_board *board);
/* Test places, which must lie within DRAM; tested begins with zeros. What they hold stays. */
void dram_test(const struct wire_memory *what, struct wire_tested *tested);
/* Count a lane's wrong bits at each of its board_delays(). What DRAM holds stays, and so does what training chose. */
void dram_scan(const struct wire_lane *what, struct wire_eye *eye, uint32_t *errors);
