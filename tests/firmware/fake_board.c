/* A board for firmware on a PC: a line, a DRAM whose lanes are trained, a flash, and a reset that a test notices. */
#include "fake.h"

#include <assert.h>
#include <string.h>

#include "board.h"
#include "../../soc/sim/flash_chip.h"

#define LINE 8192u

static uint8_t dram[FAKE_DRAM_BYTES] __attribute__((aligned(16)));
static uint8_t flash_bytes_[FAKE_FLASH_BYTES];
static struct flash_chip flash;
static uint32_t flash_offset;
static struct {
	uint8_t in[LINE], out[LINE];
	uint32_t in_head, in_tail, out_head, out_tail, out_room;
	uint32_t rate, host_rate;
} line;

/* What a byte becomes between ends of different rates. */
static uint8_t carried(uint8_t byte)
{
	return line.rate == line.host_rate ? byte : (uint8_t)(byte * 37 + 11) | 1;
}

/* The line, and how the host sees it. */

uint32_t fake_feed(const uint8_t *bytes, uint32_t size)
{
	uint32_t n = 0;

	while (n < size && line.in_head - line.in_tail < LINE)
		line.in[line.in_head++ % LINE] = carried(bytes[n++]);
	return n;
}

uint32_t fake_drain(uint8_t *bytes, uint32_t size)
{
	uint32_t n = 0;

	while (n < size && line.out_tail != line.out_head)
		bytes[n++] = carried(line.out[line.out_tail++ % LINE]);
	return n;
}

uint32_t fake_waiting(void)
{
	return line.in_head - line.in_tail;
}

static void (*when_full)(void);

void fake_when_full(void (*pass)(void))
{
	when_full = pass;
}

void fake_transmitter(uint32_t room)
{
	line.out_room = room < LINE ? room : LINE;
}

void fake_rate(uint32_t rate)
{
	line.host_rate = rate;
}

void fake_line_reset(void)
{
	memset(&line, 0, sizeof line);
	line.out_room = LINE;
	line.rate = line.host_rate = FAKE_BAUD;
}

/* Flash and DRAM. */

void fake_flash(uint32_t bytes, uint32_t offset)
{
	flash = (struct flash_chip){.bytes = flash_bytes_, .size = bytes, .id = {0x20, 0xba, 0}};
	while (bytes > 1u << flash.id[2])
		flash.id[2]++;
	flash_offset = offset;
	memset(flash_bytes_, 0xff, sizeof flash_bytes_);
}

uint8_t *fake_flash_bytes(void)
{
	return flash_bytes_;
}

void fake_flash_lock(void)
{
	flash.locked = true;
}

uint32_t fake_flash_misuse(void)
{
	return flash.misuse;
}

void fake_flash_cut(uint32_t seed)
{
	uint32_t size = flash.erasing ? CHIP_SECTOR : CHIP_PAGE;

	for (uint32_t i = 0; flash.looks != 0 && i < size; i++) {
		seed = seed * 1664525u + 1013904223u;
		if (flash.erasing)
			flash_bytes_[flash.target + i] |= seed >> 24;
		else if (flash.written[i])
			flash_bytes_[flash.target + i] &= flash.page[i] | seed >> 24;
	}
}

uint8_t *fake_dram(void)
{
	return dram;
}

/* board.h */

/* Byte lanes: one reads right in a window of delays at one bitslip, and elsewhere every bit is wrong. A fault of DRAM
 * shows with the next look at what DRAM holds. */
static struct {
	uint32_t bitslip, delay;      /* now */
	uint32_t good, first, last;   /* bitslip and delays at which it reads right */
	bool wrong;                   /* what dram holds is inverted */
	bool stuck;
} lanes[FAKE_LANES];
static uint32_t bad_row_at, bad_row_bits, dram_failed_at_start;

void fake_lane(uint32_t lane, uint32_t bitslip, uint32_t first, uint32_t last, uint32_t delay)
{
	lanes[lane].good = lanes[lane].bitslip = bitslip;
	lanes[lane].first = first;
	lanes[lane].last = last;
	lanes[lane].delay = delay;
}

void fake_lane_stuck(uint32_t lane)
{
	lanes[lane].stuck = true;
}

void fake_bad_row(uint32_t offset, uint32_t bits)
{
	bad_row_at = offset;
	bad_row_bits = bits;
}

static struct {
	uint32_t events, resets, alive;
} watch;

void fake_events(uint32_t events)
{
	watch.events = events;
}

uint32_t fake_resets(void)
{
	return watch.resets;
}

uint32_t fake_alive(void)
{
	return watch.alive;
}

uint32_t board_events(void)
{
	uint32_t events = watch.events;

	watch.events = 0;
	return events;
}

void board_reset(void)
{
	watch.resets++;
}

void board_alive(void)
{
	watch.alive++;
}

void fake_dram_fails(void)
{
	dram_failed_at_start = 1;
}

void board_init(void)
{
}

bool board_dram_train(void)
{
	return true;
}

bool board_dram_ok(void)
{
	return !dram_failed_at_start;
}

void board_describe(struct wire_board *board)
{
	board->simulated = 1;
	board->pin_bytes = 16;
	board->banks = 8;
	board->row_bytes = FAKE_ROW_BYTES;
}

uint32_t board_lanes(void)
{
	return FAKE_LANES;
}

uint32_t board_delays(void)
{
	return 8;
}

uint32_t board_bitslips(void)
{
	return 2;
}

void board_lane_read(uint32_t lane, uint32_t *bitslip, uint32_t *delay)
{
	*bitslip = lanes[lane].bitslip;
	*delay = lanes[lane].delay;
}

void board_lane_write(uint32_t lane, uint32_t bitslip, uint32_t delay)
{
	lanes[lane].bitslip = bitslip;
	lanes[lane].delay = delay;
}

uint32_t board_dram_bytes(void)
{
	return FAKE_DRAM_BYTES;
}

uint32_t board_clock_hz(void)
{
	return 100000000;
}

unsigned board_read(uint8_t *bytes, unsigned size)
{
	unsigned n = 0;

	while (n < size && line.in_tail != line.in_head)
		bytes[n++] = line.in[line.in_tail++ % LINE];
	return n;
}

unsigned board_write(const uint8_t *bytes, unsigned size)
{
	unsigned n = 0;

	if (when_full != NULL && line.out_head - line.out_tail >= line.out_room)
		when_full();
	while (n < size && line.out_head - line.out_tail < line.out_room)
		line.out[line.out_head++ % LINE] = bytes[n++];
	return n;
}

bool board_sent(void)
{
	return line.out_tail == line.out_head;
}

uint32_t board_baud_first(void)
{
	return FAKE_BAUD;
}

uint32_t board_baud(void)
{
	return line.rate;
}

uint32_t board_baud_maximum(void)
{
	return PROTOCOL_MAX_BAUD;
}

void board_baud_set(uint32_t rate)
{
	line.rate = rate;
}

uint8_t *board_dram(void)
{
	return dram;
}

void board_dram_publish(void)
{
}

void board_dram_refresh(void)
{
	for (uint32_t lane = 0; lane < FAKE_LANES; lane++) {
		bool right = lanes[lane].bitslip == lanes[lane].good && lanes[lane].delay >= lanes[lane].first &&
			     lanes[lane].delay <= lanes[lane].last;

		if (lanes[lane].stuck)
			for (uint32_t at = lane; at < sizeof dram; at += FAKE_LANES)
				dram[at] = 0xff;
		else if (right == lanes[lane].wrong)
			for (uint32_t at = lane; at < sizeof dram; at += FAKE_LANES)
				dram[at] = ~dram[at];
		lanes[lane].wrong = !lanes[lane].stuck && !right;
	}
	for (uint32_t at = 0; at < FAKE_ROW_BYTES && bad_row_bits != 0; at += 4)
		*(uint32_t *)(dram + bad_row_at + at) |= bad_row_bits;
}

uint32_t board_flash_offset(void)
{
	return flash_offset;
}

void board_flash_select(bool selected)
{
	assert(flash_offset != 0);
	flash_chip_select(&flash, selected);
}

uint32_t board_flash_exchange(uint32_t out, unsigned bytes)
{
	uint32_t in = 0;

	assert(flash_offset != 0);
	for (; bytes != 0; bytes--, out <<= 8) {
		in = in << 8 | (flash.size != 0 ? flash_chip_out(&flash) : 0xff);
		flash_chip_in(&flash, out >> 24);
	}
	return in;
}
