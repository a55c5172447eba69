/* Why the board began anew: recorded in memory that outlives a reset, told to the host by HELLO. */
#pragma once

#include <stdint.h>

#include <generated/llama2_spec.h>

/* Learn why the firmware starts, before anything else. */
void restart_begin(void);
/* The cause in bits 31:24, see enum restart, and the place in the firmware below, as HELLO's reply has it. */
uint32_t restart_why(void);
/* Record a cause (an enum restart, or RESTART_TRAP plus a trap's number) and the place, and reset the board: does not
 * return on one. */
void restart(uint32_t cause, uint32_t pc);
/* The main loop runs: keep the watchdog quiet, but for a core that is busy and moves nothing; reset the board after an
 * access that nothing answered. */
void restart_poll(void);
