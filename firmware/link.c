/* Frames over the serial line: COBS, CRC-32, buffers in both directions.
 * Ref: Cheshire & Baker 1999, Consistent Overhead Byte Stuffing. */
#include "link.h"

#include "board.h"
#include "crc32.h"

#define HEADER_BYTES sizeof(struct frame_header)
#define CRC_BYTES 4u
#define SEND_BYTES 2048u /* a power of two; more than FRAME_MAX_ENCODED */
#define READ_BYTES 32u   /* taken from the receiver at a time */

_Static_assert(SEND_BYTES > FRAME_MAX_ENCODED, "a frame fits the send buffer");

static struct {
	uint8_t bytes[FRAME_MAX] __attribute__((aligned(8)));
	uint32_t length;
	uint8_t left;    /* bytes until the next code byte */
	uint8_t code;    /* last code byte; 0 before the first */
	bool overrun;    /* more than a frame can hold */
	bool ready;      /* a good frame waits */
	uint32_t damaged;
	uint8_t ahead[READ_BYTES]; /* received, not decoded yet */
	uint8_t ahead_count;
	uint8_t ahead_at;
} in;

static struct {
	uint8_t bytes[SEND_BYTES];
	uint32_t head;   /* next byte to write here, counting on */
	uint32_t tail;   /* next byte to transmit */
	uint32_t code;   /* where the code byte of the open block goes */
	uint8_t run;     /* its value so far */
} out;

static void restart(void)
{
	in.length = 0;
	in.left = 0;
	in.code = 0;
	in.overrun = false;
}

static void append(uint8_t byte)
{
	if (in.length < FRAME_MAX)
		in.bytes[in.length++] = byte;
	else
		in.overrun = true;
}

/* The bytes between two delimiters are a frame. */
static bool whole(void)
{
	uint32_t body = in.length - CRC_BYTES;
	uint32_t crc;

	if (in.overrun || in.left != 0 || in.length < HEADER_BYTES + CRC_BYTES)
		return false;
	if (link_header()->length != body - HEADER_BYTES)
		return false;
	crc = in.bytes[body] | in.bytes[body + 1] << 8 | in.bytes[body + 2] << 16 | (uint32_t)in.bytes[body + 3] << 24;
	return crc == crc32_update(0, in.bytes, body);
}

static void end_of_frame(void)
{
	if (in.code == 0)
		return; /* nothing between two delimiters */
	in.ready = whole();
	if (!in.ready) {
		in.damaged++;
		restart();
	}
}

static void decode(uint8_t byte)
{
	if (byte == FRAME_DELIMITER) {
		end_of_frame();
	} else if (in.left != 0) {
		in.left--;
		append(byte);
	} else {
		if (in.code != 0 && in.code != 0xff)
			append(0);
		in.code = byte;
		in.left = byte - 1;
	}
}

static void transmit(void)
{
	while (out.tail != out.head) {
		uint32_t at = out.tail % SEND_BYTES;
		uint32_t size = out.head - out.tail;
		uint32_t sent;

		if (size > SEND_BYTES - at)
			size = SEND_BYTES - at;
		sent = board_write(out.bytes + at, size);
		out.tail += sent;
		if (sent < size)
			return;
	}
}

bool link_poll(void)
{
	transmit();
	while (!in.ready) {
		if (in.ahead_at == in.ahead_count) {
			in.ahead_count = board_read(in.ahead, READ_BYTES);
			in.ahead_at = 0;
			if (in.ahead_count == 0)
				break;
		}
		decode(in.ahead[in.ahead_at++]);
	}
	return in.ready;
}

const struct frame_header *link_header(void)
{
	return (const struct frame_header *)in.bytes;
}

uint32_t link_sequence(void)
{
	return link_header()->sequence | (uint32_t)link_header()->sequence_high << 16;
}

const void *link_payload(void)
{
	return in.bytes + HEADER_BYTES;
}

void link_release(void)
{
	in.ready = false;
	restart();
}

bool link_sent(void)
{
	return out.tail == out.head && board_sent();
}

uint32_t link_damaged(void)
{
	return in.damaged;
}

/* Bytes on the wire of a frame with this payload: one code byte per 254, and the delimiter. */
static uint32_t encoded_bytes(uint32_t payload_bytes)
{
	uint32_t body = HEADER_BYTES + payload_bytes + CRC_BYTES;

	return body + body / 254 + 2;
}

bool link_room(uint32_t payload_bytes)
{
	return SEND_BYTES - (out.head - out.tail) >= encoded_bytes(payload_bytes);
}

static void block_open(void)
{
	out.code = out.head++;
	out.run = 1;
}

static void block_close(void)
{
	out.bytes[out.code % SEND_BYTES] = out.run;
}

static void encode(const void *bytes, uint32_t size)
{
	const uint8_t *p = bytes;

	for (; size != 0; size--, p++) {
		/* A full block is closed only when more follows, so that none is empty at the end. */
		if (out.run == 0xff) {
			block_close();
			block_open();
		}
		if (*p != 0) {
			out.bytes[out.head++ % SEND_BYTES] = *p;
			out.run++;
		} else {
			block_close();
			block_open();
		}
	}
}

void link_send2(uint8_t opcode, uint8_t status, uint32_t sequence, const void *first, uint32_t first_bytes,
		const void *second, uint32_t second_bytes)
{
	uint32_t payload_bytes = first_bytes + second_bytes;
	struct frame_header header = {opcode, status, sequence & 0xffff, payload_bytes, sequence >> 16};
	uint32_t crc = crc32_update(0, &header, HEADER_BYTES);
	uint8_t trailer[CRC_BYTES];

	crc = crc32_update(crc, first, first_bytes);
	crc = crc32_update(crc, second, second_bytes);
	for (unsigned i = 0; i < CRC_BYTES; i++)
		trailer[i] = crc >> 8 * i;
	while (!link_room(payload_bytes))
		transmit();
	block_open();
	encode(&header, HEADER_BYTES);
	encode(first, first_bytes);
	encode(second, second_bytes);
	encode(trailer, CRC_BYTES);
	block_close();
	out.bytes[out.head++ % SEND_BYTES] = FRAME_DELIMITER;
	transmit();
}

void link_send(uint8_t opcode, uint8_t status, uint32_t sequence, const void *payload, uint32_t bytes)
{
	link_send2(opcode, status, sequence, payload, bytes, 0, 0);
}
