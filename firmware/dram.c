/* DRAM at start: trained by liblitedram, tested here, and what it held before a reset put right.
 *
 * liblitedram's own test writes over the first 2 MiB; this one puts back what it finds. Its training writes over the first burst,
 * which is all that it changes: that burst is kept in SRAM, too, and returned if what follows it is still the image it belongs to. */
#include "dram.h"

#include <generated/llama2_spec.h>
#include <stddef.h>
#include <string.h>

#include "board.h"
#include "crc32.h"

#define BURST_WORDS (IMAGE_CHECKED_FROM / 4) /* of training, and of the header's fields before those that its CRC covers */
#define PLACE_WORDS 8u /* two bursts */
#define PLACES 24u     /* powers of two from 32 bytes on, as far as DRAM reaches: every line of the address */

/* Survives a reset, which crt0 answers with zeros in .bss. */
static uint32_t kept[BURST_WORDS] __attribute__((section(".noinit")));

static uint32_t *place(unsigned n)
{
	uint32_t offset = n == 0 ? 0 : 1u << (4 + n);

	return offset < board_dram_bytes() ? (uint32_t *)(board_dram() + offset) : 0;
}

/* Words that differ in every place and round. Ref: Steele and others 2014, SplitMix; 32 bits of it. */
static uint32_t pattern(uint32_t n)
{
	n = (n ^ n >> 16) * 0x45d9f3bu;
	n = (n ^ n >> 16) * 0x45d9f3bu;
	return n ^ n >> 16;
}

/* Write a pattern to all places, or its complement, and see whether they hold it. */
static bool holds(uint32_t seed, uint32_t invert)
{
	bool ok = true;

	for (unsigned n = 0; n < PLACES && place(n); n++)
		for (unsigned i = 0; i < PLACE_WORDS; i++)
			place(n)[i] = pattern(seed + PLACE_WORDS * n + i) ^ invert;
	board_dram_refresh();
	for (unsigned n = 0; n < PLACES && place(n); n++)
		for (unsigned i = 0; i < PLACE_WORDS; i++)
			ok &= place(n)[i] == (pattern(seed + PLACE_WORDS * n + i) ^ invert);
	return ok;
}

/* Test every line of data and address, and put back what was there. */
static bool test(uint32_t rounds)
{
	uint32_t found[PLACES][PLACE_WORDS];
	bool ok = true;

	for (unsigned n = 0; n < PLACES && place(n); n++)
		memcpy(found[n], place(n), sizeof found[n]);
	for (uint32_t round = 0; round < rounds; round++)
		ok = ok && holds(round << 16, 0) && holds(round << 16, ~0u);
	for (unsigned n = 0; n < PLACES && place(n); n++)
		memcpy(place(n), found[n], sizeof found[n]);
	board_dram_refresh();
	return ok;
}

void dram_keep(void)
{
	memcpy(kept, board_dram(), sizeof kept);
}

/* Return the kept burst to the image it belongs to; to nothing else. */
static void put_back(void)
{
	const struct image_header *h = (const struct image_header *)board_dram();
	uint32_t end = h->payload_offset;

	if (kept[0] == IMAGE_MAGIC && end > sizeof *h && end < board_dram_bytes() &&
	    crc32_update(0, (const uint8_t *)h + IMAGE_CHECKED_FROM, end - IMAGE_CHECKED_FROM) == kept[offsetof(struct image_header, header_crc) / 4]) {
		memcpy(board_dram(), kept, sizeof kept);
		board_dram_refresh();
	}
}

bool dram_start(uint32_t rounds)
{
	bool ok = board_dram_train() && test(rounds);

	if (ok)
		put_back();
	return ok;
}
