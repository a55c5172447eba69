/* DRAM: trained by liblitedram, tested here without a loss, and what it held before a reset put right.
 *
 * liblitedram's own test writes over the first 2 MiB; this one puts back what it finds. Its training writes over the
 * first burst, which is all that it changes: that burst is kept in SRAM, too, and returned if what follows it is still
 * the image it belongs to. */
#include "dram.h"

#include <stddef.h>
#include <string.h>

#include "board.h"
#include "crc32.h"

#define BURST_WORDS \
	(IMAGE_CHECKED_FROM / 4) /* of training, and of the header's fields before those that its CRC covers */
#define PLACE_WORDS (PROTOCOL_PLACE_BYTES / 4) /* two bursts */
#define PLACES \
	24u /* that are written before any is read; the powers of two from 32 bytes on: every line of the address */

/* Survives a reset, which crt0 answers with zeros in .bss. */
static uint32_t kept[BURST_WORDS] __attribute__((section(".noinit")));

/* At most PLACES of them: step bytes apart, or, with step 0, at 0 and the powers of two. */
struct places {
	uint32_t offset, step, count;
	uint32_t mask; /* bits of a word that are looked at */
	uint32_t found[PLACES][PLACE_WORDS]; /* what was there before */
};

struct fault {
	uint32_t places; /* bit n: place n did not hold what was written */
	uint32_t bits;   /* that were wrong in any of its words */
	uint32_t errors; /* wrong bits, all in all */
};

static struct {
	uint32_t offset, bits;
} failed; /* at start */

static uint32_t offset_of(const struct places *p, unsigned n)
{
	return p->step != 0 ? p->offset + n * p->step : n == 0 ? 0 :
								 1u << (4 + n);
}

/* The powers of two, as far as DRAM reaches. */
static void powers(struct places *p, uint32_t mask)
{
	p->offset = p->step = p->count = 0;
	p->mask = mask;
	while (p->count < PLACES && offset_of(p, p->count) < board_dram_bytes())
		p->count++;
}

/* Words that differ in every place and round. Ref: Steele and others 2014, SplitMix; 32 bits of it. */
static uint32_t pattern(uint32_t n)
{
	n = (n ^ n >> 16) * 0x45d9f3bu;
	n = (n ^ n >> 16) * 0x45d9f3bu;
	return n ^ n >> 16;
}

enum work {
	TAKE,
	GIVE_BACK,
	FILL,
	LOOK,
};

/* Walk over the places: keep what is there, put it back, fill them with a pattern, or add to fault what they do not
 * hold of it. */
static void walk(struct places *p, enum work work, uint32_t seed, uint32_t invert, struct fault *fault)
{
	board_dram_refresh();
	for (unsigned n = 0; n < p->count; n++) {
		uint32_t *word = (uint32_t *)(board_dram() + offset_of(p, n));

		for (unsigned i = 0; i < PLACE_WORDS; i++, word++) {
			uint32_t expected = pattern(seed++) ^ invert;
			uint32_t wrong;

			if (work == TAKE)
				p->found[n][i] = *word;
			else if (work == GIVE_BACK)
				*word = p->found[n][i];
			else if (work == FILL)
				*word = expected;
			if (work != LOOK)
				continue;
			wrong = (*word ^ expected) & p->mask;
			fault->bits |= wrong;
			fault->places |= (uint32_t)(wrong != 0) << n;
			for (; wrong != 0; wrong &= wrong - 1)
				fault->errors++;
		}
	}
	board_dram_refresh();
}

/* Test these places, and put back what was there. */
static struct fault test(struct places *p, uint32_t rounds)
{
	struct fault fault = {0};

	walk(p, TAKE, 0, 0, 0);
	for (uint32_t half = 0; half < 2 * rounds && fault.places == 0; half++) {
		uint32_t invert = -(half & 1);

		walk(p, FILL, p->offset + (half << 15), invert, 0);
		walk(p, LOOK, p->offset + (half << 15), invert, &fault);
	}
	walk(p, GIVE_BACK, 0, 0, 0);
	return fault;
}

void dram_test(const struct wire_memory *what, struct wire_tested *tested)
{
	struct places p;

	p.offset = what->offset;
	p.step = what->step;
	p.mask = ~0u;
	for (uint32_t left = what->count; left != 0; left -= p.count, p.offset += p.count * p.step) {
		struct fault fault;

		p.count = left < PLACES ? left : PLACES;
		fault = test(&p, 1);
		tested->tested += p.count;
		tested->bits |= fault.bits;
		for (unsigned n = 0; fault.places != 0; n++, fault.places >>= 1) {
			if (!(fault.places & 1))
				continue;
			if (tested->bad++ == 0)
				tested->first = offset_of(&p, n);
			tested->last = offset_of(&p, n);
		}
	}
}

void dram_scan(const struct wire_lane *what, struct wire_eye *eye, uint32_t *errors)
{
	struct places p;

	powers(&p, what->mask);
	board_lane_read(what->lane, &eye->bitslip, &eye->delay);
	eye->words = p.count * PLACE_WORDS;
	walk(&p, TAKE, 0, 0, 0);
	walk(&p, FILL, 0, 0, 0);
	for (uint32_t delay = 0; delay < board_delays(); delay++) {
		struct fault fault = {0};

		board_lane_write(what->lane, what->bitslip, delay);
		walk(&p, LOOK, 0, 0, &fault);
		errors[delay] = fault.errors;
	}
	board_lane_write(what->lane, eye->bitslip, eye->delay);
	walk(&p, GIVE_BACK, 0, 0, 0);
}

void dram_failed(struct wire_board *board)
{
	board->failed_offset = failed.offset;
	board->failed_bits = failed.bits;
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
	    crc32_update(0, (const uint8_t *)h + IMAGE_CHECKED_FROM, end - IMAGE_CHECKED_FROM) ==
		kept[offsetof(struct image_header, header_crc) / 4]) {
		memcpy(board_dram(), kept, sizeof kept);
		board_dram_refresh();
	}
}

bool dram_start(uint32_t rounds)
{
	struct places p;
	struct fault fault;
	unsigned first = 0;

	if (!board_dram_train())
		return false;
	powers(&p, ~0u);
	fault = test(&p, rounds);
	if (fault.places == 0) {
		put_back();
		return true;
	}
	while (!(fault.places >> first & 1))
		first++;
	failed.offset = offset_of(&p, first);
	failed.bits = fault.bits;
	return false;
}
