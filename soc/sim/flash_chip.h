// A serial NOR flash, byte by byte: for the simulation, and for the firmware's tests on a PC.
//
// It knows the commands that firmware/flash.c uses. Erasing sets bits, writing clears them; both last
// for some looks at the status. Half of the work is done before the first look and the rest after the last; other
// commands are ignored meanwhile.
// Ref: data sheets of S25FL128S and N25Q128A.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define CHIP_SECTOR      65536u
#define CHIP_PAGE        256u
#define CHIP_ERASE_LOOKS 5u
#define CHIP_WRITE_LOOKS 2u

struct flash_chip {
	uint8_t *bytes;
	uint32_t size;          // a power of two
	uint8_t id[3];
	bool locked;            // block protection: erasing and writing change nothing
	unsigned misuse;        // commands while busy, or without write enable

	bool selected, enabled;
	uint32_t count;         // bytes since it was selected
	uint8_t opcode;
	uint32_t address;
	uint8_t page[CHIP_PAGE];
	uint8_t written[CHIP_PAGE];     // which bytes of it
	unsigned looks;         // until it is no longer busy
	bool erasing;
	uint32_t target;        // of what it is busy with
};

// Do one half of the erasure or write that is under way.
static inline void flash_chip_work(struct flash_chip *c, unsigned half)
{
	unsigned size = (c->erasing ? CHIP_SECTOR : CHIP_PAGE) / 2;
	uint8_t *to = c->bytes + c->target + half * size;

	if (c->locked)
		return;
	for (unsigned i = 0; i < size; i++)
		to[i] = c->erasing ? 0xff : to[i] & (c->written[half * size + i] ? c->page[half * size + i] : 0xff);
}

static inline void flash_chip_start(struct flash_chip *c, bool erasing)
{
	if (!c->enabled) {
		c->misuse++;
		return;
	}
	c->enabled = false;
	c->erasing = erasing;
	c->target = c->address & (c->size - 1) & ~((erasing ? CHIP_SECTOR : CHIP_PAGE) - 1);
	c->looks = erasing ? CHIP_ERASE_LOOKS : CHIP_WRITE_LOOKS;
	flash_chip_work(c, 0);
}

static inline void flash_chip_select(struct flash_chip *c, bool selected)
{
	if (selected == c->selected)
		return;
	c->selected = selected;
	if (selected) {
		c->count = 0;
		return;
	}
	if (c->opcode == 0x05 && c->looks != 0 && --c->looks == 0)
		flash_chip_work(c, 1);
	else if (c->opcode == 0x06)
		c->enabled = true;
	else if ((c->opcode == 0xd8 && c->count == 4) || (c->opcode == 0x02 && c->count > 4))
		flash_chip_start(c, c->opcode == 0xd8);
	c->opcode = 0;
}

// The byte that the chip sends while the next byte arrives.
static inline uint8_t flash_chip_out(const struct flash_chip *c)
{
	if (c->count == 0)
		return 0xff;
	if (c->opcode == 0x05)
		return (c->looks != 0) | c->enabled << 1;
	if (c->opcode == 0x9f && c->count <= 3)
		return c->id[c->count - 1];
	if (c->opcode == 0x03 && c->count >= 4)
		return c->bytes[(c->address + c->count - 4) & (c->size - 1)];
	return 0xff;
}

// Handle a byte that arrived.
static inline void flash_chip_in(struct flash_chip *c, uint8_t byte)
{
	if (c->count == 0) {
		bool deaf = c->looks != 0 && byte != 0x05;

		c->misuse += deaf;
		c->opcode = deaf ? 0 : byte;
		c->address = 0;
		if (c->opcode == 0x02)
			memset(c->written, 0, sizeof c->written);
	} else if (c->count < 4) {
		c->address = c->address << 8 | byte;
	} else if (c->opcode == 0x02) {
		unsigned at = (c->address + c->count - 4) % CHIP_PAGE;

		c->page[at] = byte;
		c->written[at] = 1;
	}
	c->count++;
}
