/* The board's SPI flash, by the commands that all serial NOR chips share.
 * Ref: JEDEC JESD216, SFDP; data sheets of S25FL128S, N25Q128A, IS25LP256D: ID, 3-byte addresses, 64 KiB sectors. */
#include "flash.h"

#include "board.h"

#define COMMAND_WRITE 0x02u
#define COMMAND_READ 0x03u
#define COMMAND_STATUS 0x05u
#define COMMAND_WRITE_ENABLE 0x06u
#define COMMAND_ID 0x9fu
#define COMMAND_ERASE 0xd8u

#define STATUS_BUSY 1u
#define STATUS_NOBODY 0xffu /* no chip, which would not set all of these bits */
#define LARGEST 24u /* log2 of what 3 address bytes reach */

static uint32_t id;

/* A command with at most 3 more bytes of either direction; returns what came. */
static uint32_t command(uint32_t opcode, unsigned bytes)
{
	uint32_t in;

	board_flash_select(true);
	in = board_flash_exchange(opcode << 24, bytes);
	board_flash_select(false);
	return in;
}

/* Select the chip and send a command with an address, which is never one of the bitstream's. */
static void begin(uint32_t opcode, uint32_t offset)
{
	board_flash_select(true);
	board_flash_exchange(opcode << 24 | (board_flash_offset() + offset), 4);
}

/* A word in DRAM's order of bytes, in the chip's, and back. */
static uint32_t swapped(uint32_t word)
{
	return word << 24 | (word & 0xff00) << 8 | (word >> 8 & 0xff00) | word >> 24;
}

uint32_t flash_id(void)
{
	/* While it is busy it does not say. */
	if (id == 0 && board_flash_offset() != 0 && !flash_busy())
		id = command(COMMAND_ID, 4) & 0xffffff;
	return id;
}

uint32_t flash_bytes(void)
{
	uint32_t vendor = flash_id() >> 16;
	uint32_t size_log2 = flash_id() & 0xff;

	/* A line that nobody drives reads as all ones or all zeros. */
	if (vendor == 0 || vendor == 0xff || size_log2 < 16 || size_log2 > 31)
		return 0;
	return 1u << (size_log2 < LARGEST ? size_log2 : LARGEST);
}

uint32_t flash_room(void)
{
	uint32_t bytes = flash_bytes();

	return bytes > board_flash_offset() ? bytes - board_flash_offset() : 0;
}

bool flash_busy(void)
{
	uint32_t status = board_flash_offset() != 0 ? command(COMMAND_STATUS, 2) & 0xff : 0;

	return status != STATUS_NOBODY && (status & STATUS_BUSY) != 0;
}

void flash_read(uint32_t offset, uint32_t *words, uint32_t bytes)
{
	begin(COMMAND_READ, offset);
	for (; bytes != 0; bytes -= 4)
		*words++ = swapped(board_flash_exchange(0, 4));
	board_flash_select(false);
}

void flash_erase(uint32_t offset)
{
	command(COMMAND_WRITE_ENABLE, 1);
	begin(COMMAND_ERASE, offset);
	board_flash_select(false);
}

void flash_write(uint32_t offset, const uint32_t *words, uint32_t bytes)
{
	command(COMMAND_WRITE_ENABLE, 1);
	begin(COMMAND_WRITE, offset);
	for (; bytes != 0; bytes -= 4)
		board_flash_exchange(swapped(*words++), 4);
	board_flash_select(false);
}
