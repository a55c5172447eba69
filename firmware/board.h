/* What the firmware needs of the SoC around the core: serial line, DRAM, caches, clock. board.c is for LiteX, tests
 * bring their own. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <generated/llama2_spec.h>

/* Bring up interrupts and DRAM. */
void board_init(void);
/* Begin anew, as after power-up, but with what memory holds: does not return on a board. */
void board_reset(void);
/* The firmware runs. Two ticks of seconds without this word, once it was given, and the board is reset. */
void board_alive(void);
/* What happened since the last call; of what was before a reset, the first call tells. */
#define BOARD_EVENT_TIME 1u /* the watchdog reset the board */
#define BOARD_EVENT_BUS 2u  /* an access that nothing answered; a read gave ones */
uint32_t board_events(void);
/* Initialise DRAM and train its interface, which may write over DRAM's first IMAGE_CHECKED_FROM bytes; false if that
 * failed. */
bool board_dram_train(void);
/* DRAM was initialised, trained and tested. */
bool board_dram_ok(void);
uint32_t board_dram_bytes(void);
/* What BOARD's reply says of the DRAM: the build's own facts. */
void board_describe(struct wire_board *board);

/* Byte lanes of the DRAM whose reads are trained, and the delays and whole bits that each can be shifted by. 0: none.
 */
uint32_t board_lanes(void);
uint32_t board_delays(void);
uint32_t board_bitslips(void);
/* A lane's present shift: at first what training chose. */
void board_lane_read(uint32_t lane, uint32_t *bitslip, uint32_t *delay);
void board_lane_write(uint32_t lane, uint32_t bitslip, uint32_t delay);

uint32_t board_clock_hz(void);

/* Read up to size received bytes, without waiting; returns how many. */
unsigned board_read(uint8_t *bytes, unsigned size);
/* Write up to size bytes, as far as the transmitter takes them now; returns how many. */
unsigned board_write(const uint8_t *bytes, unsigned size);

/* Everything that was written is on the line. */
bool board_sent(void);

/* Bits per second of the serial line: at reset, now, and at most; the latter is 0 where the rate is fixed. */
uint32_t board_baud_first(void);
uint32_t board_baud(void);
uint32_t board_baud_maximum(void);
void board_baud_set(uint32_t rate);

/* First byte of the SPI flash that a model may have; what lies before is the bitstream's. 0: there is no flash. */
uint32_t board_flash_offset(void);
/* Begin a command to the flash, or end it. */
void board_flash_select(bool selected);
/* Send the upper bytes (1 to 4) of out, first the uppermost; returns as many that came meanwhile, in the lower ones. */
uint32_t board_flash_exchange(uint32_t out, unsigned bytes);

/* DRAM as the CPU sees it: cached. */
uint8_t *board_dram(void);
/* A whole image: what the CPU wrote reaches DRAM before this returns. */
void board_dram_publish(void);
/* What the CPU wrote reaches DRAM before this returns, and what it reads after this is what DRAM holds. */
void board_dram_refresh(void);
