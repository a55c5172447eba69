/* What the firmware must never do: tell the core to read or write where it must not, or send what is no whole frame. */
#include "judge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "board.h"
#include "crc32.h"
#include "fake.h"
#include "image.h"
#include "session.h"

#define FIELD(command, name) \
	((command)->words[LLAMA2_COMMAND_##name##_WORD] >> LLAMA2_COMMAND_##name##_LOW & LLAMA2_COMMAND_##name##_MASK)

/* Of the core: a command that reads or writes where it must not is what the hardware would do without a word. */

#define MUST(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "command %08x %08x %08x %08x: not %s\n", c->words[0], c->words[1], \
				c->words[2], c->words[3], #condition); \
			abort(); \
		} \
	} while (0)

/* Rows of the cache are those of one layer of one slot: at these beats, so many. */
static void look_at_rows(const struct llama2_command *c, uint64_t beats)
{
	const struct image_model *model = image_model();
	uint64_t base = FIELD(c, BASE), layer = (uint64_t)model->slots.length * model->row_beats;

	MUST(base >= model->kv_base && base + beats <= (uint64_t)model->kv_base + model->kv_beats);
	MUST((base - model->kv_base) % layer + beats <= layer);
}

static void look(const struct llama2_command *c)
{
	const struct image_header *h = (const struct image_header *)board_dram();
	const struct image_model *model = image_model();
	uint32_t op = FIELD(c, OPCODE);
	uint64_t base = FIELD(c, BASE), end = base + FIELD(c, BEATS);

	session_counts.commands++;
	if (op == LLAMA2_OP_CRC) {
		MUST(end * BEAT_BYTES <= FAKE_DRAM_BYTES);
	} else if (op == LLAMA2_OP_GAIN || op == LLAMA2_OP_MATVEC) {
		MUST(base >= h->payload_offset / BEAT_BYTES && end <= h->file_bytes / BEAT_BYTES && end != base);
	} else if (op == LLAMA2_OP_EMBED) {
		MUST(base >= h->payload_offset / BEAT_BYTES && base < h->file_bytes / BEAT_BYTES);
		MUST(FIELD(c, LAST_TOKEN) || FIELD(c, AWAITED) || FIELD(c, TOKEN) < model->vocab_size);
		MUST(FIELD(c, POSITION) < model->slots.length);
	} else if (op == LLAMA2_OP_STORE) {
		MUST(FIELD(c, FIRST) <= FIELD(c, COLUMN));
		look_at_rows(c, (FIELD(c, COLUMN) - FIELD(c, FIRST) + 1) * model->row_beats);
	} else {
		MUST(op == LLAMA2_OP_ATTEND && FIELD(c, ROWS) <= model->slots.length);
		look_at_rows(c, FIELD(c, BEATS));
	}
}

/* What the device sends. */

static uint8_t reply[FRAME_MAX_ENCODED + 1];
static uint32_t reply_bytes;

/* Undo the byte stuffing of what lies between two delimiters; its length, 0 if that is no frame. */
static uint32_t decode(uint8_t *frame)
{
	uint32_t n = 0;

	for (uint32_t at = 0; at < reply_bytes;) {
		uint32_t code = reply[at];

		if (code == 0 || at + code > reply_bytes)
			return 0;
		memcpy(frame + n, reply + at + 1, code - 1);
		n += code - 1;
		at += code;
		if (code < 0xff && at < reply_bytes)
			frame[n++] = 0;
	}
	return n;
}

static void judge_frame(void)
{
	uint8_t frame[FRAME_MAX_ENCODED + 1];
	struct frame_header header;
	uint32_t n = decode(frame), crc;

	if (n < sizeof header + sizeof crc) {
		fprintf(stderr, "the device sent %u bytes that are no frame\n", reply_bytes);
		abort();
	}
	memcpy(&header, frame, sizeof header);
	memcpy(&crc, frame + n - sizeof crc, sizeof crc);
	if (header.length != n - sizeof header - sizeof crc || crc != crc32_update(0, frame, n - sizeof crc)) {
		fprintf(stderr, "the device sent a damaged frame, opcode %#x\n", header.opcode);
		abort();
	}
	session_counts.replies++;
	session_counts.refused += header.status != STATUS_OK;
}

void judge_replies(void)
{
	uint8_t bytes[256];
	uint32_t count;

	fake_rate(board_baud()); /* a host that follows: what other rates make of bytes is no finding */
	while ((count = fake_drain(bytes, sizeof bytes)) != 0)
		for (uint32_t i = 0; i < count; i++) {
			if (bytes[i] != FRAME_DELIMITER && reply_bytes < sizeof reply) {
				reply[reply_bytes++] = bytes[i];
			} else {
				judge_frame();
				reply_bytes = 0;
			}
		}
}

void judge_begin(void)
{
	reply_bytes = 0;
	fake_when_pushed(look);
}
