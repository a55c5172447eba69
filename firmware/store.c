/* A model in the board's flash: written from DRAM in the background, and copied back to DRAM after reset.
 *
 * The flash holds the image as the file is. Its first sector is erased before anything else changes and written last,
 * so that what a power failure leaves behind is no image; a sector that a failure left half written differs from DRAM,
 * and is written again by the next attempt. */
#include "store.h"

#include "board.h"
#include "crc32.h"
#include "flash.h"
#include "llama2.h"

#define SLICE 1024u       /* bytes per poll: half a millisecond */
#define PATIENCE_S 10u    /* three times what the slowest chip needs for a sector */

static struct {
	enum store_state state;
	enum { COMPARE,
	       WRITE,
	       VERIFY } step;
	bool opened;       /* the first sector was erased: what the flash held is no image any more */
	uint32_t total;
	uint32_t sector;   /* offset of the present one; they are done from the last to the first */
	uint32_t at;       /* offset in flash and DRAM of what comes next */
	uint32_t written;
	uint32_t since;    /* cycle counter when the chip became busy */
} store;

static struct {
	enum { WAIT,
	       COPY } step;
	uint32_t at;       /* bytes that are in DRAM */
	uint32_t header;   /* bytes until the weights */
	uint32_t crc;      /* of what the header's CRC covers, so far */
	uint32_t end;      /* of what is worth reading */
	uint32_t total;
	uint32_t since;    /* cycle counter at the beginning */
} restore;

static uint32_t *dram(uint32_t offset)
{
	return (uint32_t *)(board_dram() + offset);
}

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t most(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

/* Whole words: what follows the image's last byte in its last word is stored, too. */
static uint32_t sector_end(void)
{
	return least(store.sector + FLASH_SECTOR, (store.total + 3) & ~3u);
}

enum status store_begin(uint32_t bytes, struct wire_error *error)
{
	if (flash_bytes() == 0) {
		*error = (struct wire_error){SUBJECT_NONE, flash_id(), 0};
		return STATUS_NO_FLASH;
	}
	if (bytes > flash_room()) {
		*error = (struct wire_error){SUBJECT_NONE, bytes, flash_room()};
		return STATUS_FLASH_SMALL;
	}
	if (store.state == STORE_STATE_RUNNING)
		return STATUS_OK; /* the same: another image ends it */
	store.state = STORE_STATE_RUNNING;
	store.step = COMPARE;
	store.opened = false;
	store.total = bytes;
	store.sector = store.at = (bytes - 1) / FLASH_SECTOR * FLASH_SECTOR;
	store.written = 0;
	store.since = llama2_cycles();
	return STATUS_OK;
}

void store_end(void)
{
	store.state = STORE_STATE_NONE;
}

void store_report(struct wire_stored *stored)
{
	stored->state = store.state;
	stored->done = store.state == STORE_STATE_DONE    ? store.total :
		       store.state == STORE_STATE_RUNNING ? store.total - least(store.total, sector_end()) :
							    0;
	stored->written = store.written;
	stored->flash_bytes = flash_bytes();
	stored->room = flash_room();
	stored->failed = store.sector;
}

static void erase(uint32_t sector)
{
	flash_erase(sector);
	store.since = llama2_cycles();
}

/* What comes next in flash and DRAM is the same; goes on to what follows. */
static bool same(void)
{
	uint32_t words[FLASH_PAGE / 4];
	uint32_t bytes = least(FLASH_PAGE, sector_end() - store.at);

	flash_read(store.at, words, bytes);
	for (uint32_t i = 0; i < bytes / 4; i++)
		if (words[i] != *dram(store.at + 4 * i))
			return false;
	store.at += bytes;
	return true;
}

static void sector_begin(uint32_t sector)
{
	store.sector = store.at = sector;
	store.step = COMPARE;
}

/* The sector differs: make room for it. */
static void make_room(void)
{
	if (!store.opened) {
		store.opened = true;
		erase(0);
		store.step = store.sector == 0 ? WRITE : COMPARE;
	} else {
		if (store.sector != 0)
			erase(store.sector);
		store.step = WRITE;
	}
	store.at = store.sector;
}

static void compare(void)
{
	for (uint32_t n = 0; n < SLICE / FLASH_PAGE && store.at != sector_end(); n++) {
		if (same())
			continue;
		if (store.step == VERIFY)
			store.state = STORE_STATE_FAILED;
		else
			make_room();
		return;
	}
	if (store.at != sector_end())
		return;
	if (store.step == VERIFY)
		store.written += least(store.total, sector_end()) - store.sector;
	if (store.sector == 0)
		store.state = STORE_STATE_DONE;
	else
		sector_begin(store.sector - FLASH_SECTOR);
}

static void write_page(void)
{
	uint32_t bytes = least(FLASH_PAGE, sector_end() - store.at);

	flash_write(store.at, dram(store.at), bytes);
	store.since = llama2_cycles();
	store.at += bytes;
	if (store.at == sector_end()) {
		store.at = store.sector;
		store.step = VERIFY;
	}
}

void store_poll(void)
{
	if (store.state != STORE_STATE_RUNNING)
		return;
	if (flash_busy()) {
		if (llama2_cycles() - store.since > PATIENCE_S * board_clock_hz())
			store.state = STORE_STATE_FAILED;
	} else if (store.step == WRITE) {
		write_page();
	} else {
		compare();
	}
}

/* Read the header; false if the flash holds no image. */
static bool read_header(void)
{
	const struct image_header *h = (const struct image_header *)board_dram();
	uint32_t magic;

	if (flash_room() < sizeof *h)
		return false;
	flash_read(0, &magic, sizeof magic);
	if (magic != IMAGE_MAGIC)
		return false; /* and DRAM stays as it is */
	flash_read(0, dram(0), sizeof *h);
	restore.at = sizeof *h;
	restore.total = most(sizeof *h, least(h->file_bytes, least(flash_room(), board_dram_bytes())));
	restore.end = restore.total;
	restore.crc = crc32_update(0, (const uint8_t *)h + IMAGE_CHECKED_FROM, sizeof *h - IMAGE_CHECKED_FROM);
	restore.header = most(sizeof *h, least(h->payload_offset & ~3u, restore.total));
	return true;
}

static void copy(void)
{
	const struct image_header *h = (const struct image_header *)board_dram();
	uint32_t end = restore.at < restore.header ? restore.header : restore.end;
	uint32_t bytes = least(SLICE, end - restore.at);

	flash_read(restore.at, dram(restore.at), (bytes + 3) & ~3u);
	if (restore.at < restore.header)
		restore.crc = crc32_update(restore.crc, dram(restore.at), bytes);
	restore.at += bytes;
	/* With a bad header the weights are not worth reading; what is wrong, the check of the image will say. */
	if (restore.at == restore.header && restore.crc != h->header_crc)
		restore.end = restore.at;
}

void restore_begin(void)
{
	restore.step = WAIT;
	restore.since = llama2_cycles();
}

enum restored restore_poll(void)
{
	if (restore.step == WAIT) {
		/* After a reset in the middle of an erasure the chip is still at it. */
		if (flash_busy() && llama2_cycles() - restore.since < PATIENCE_S * board_clock_hz())
			return RESTORE_RUNNING;
		restore.step = COPY;
		return read_header() ? RESTORE_RUNNING : RESTORE_NONE;
	}
	copy();
	if (restore.at != restore.end)
		return RESTORE_RUNNING;
	board_dram_publish();
	return RESTORE_DONE;
}

uint32_t restore_bytes(void)
{
	return restore.total;
}
