/* What a host of ill will sends: each session is of frames, raw bytes, resets and damaged images, whose replies
 * must be whole frames and whose commands to the core must stay within the model and its cache. */
#include <stdlib.h>
#include <string.h>

#include "board.h"
#include "crc32.h"
#include "device.h"
#include "install.h"
#include "fake.h"
#include "image.h"
#include "input.h"
#include "judge.h"
#include "session.h"
#include "slot.h"

#define MOST_WIRE 1300u
#define IMAGES 8u

struct session_counts session_counts;

static struct {
	uint8_t *bytes;
	uint32_t size;
} images[IMAGES];
static uint32_t image_count;

void session_image(const uint8_t *bytes, uint32_t size)
{
	images[image_count].bytes = malloc(size);
	memcpy(images[image_count].bytes, bytes, size);
	images[image_count++].size = size;
}

static void run(uint32_t polls, uint32_t commands)
{
	for (; polls != 0; polls--) {
		device_poll();
		fake_execute(commands);
		judge_replies();
	}
}

/* What the host sends. */

static void send_raw(const uint8_t *bytes, uint32_t size)
{
	while (size != 0) {
		uint32_t taken;

		fake_rate(board_baud());
		taken = fake_feed(bytes, size);

		bytes += taken;
		size -= taken;
		run(1, 4);
	}
}

static uint32_t sequence;

static void send(uint8_t opcode, const void *payload, uint32_t bytes, bool again)
{
	uint8_t body[FRAME_MAX], wire[MOST_WIRE];
	struct frame_header header = {opcode, 0, 0, bytes, 0};
	uint32_t crc, n = 0, code = 0, size = sizeof header + bytes;

	sequence += !again;
	header.sequence = sequence;
	header.sequence_high = sequence >> 16;
	memcpy(body, &header, sizeof header);
	memcpy(body + sizeof header, payload, bytes);
	crc = crc32_update(0, body, size);
	memcpy(body + size, &crc, sizeof crc);
	wire[n++] = 1;
	for (uint32_t i = 0; i < size + sizeof crc; i++) {
		if (wire[code] == 0xff || body[i] == 0) {
			bool full = wire[code] == 0xff;

			code = n;
			wire[n++] = 1;
			if (body[i] == 0 && !full)
				continue;
			if (body[i] == 0) {
				code = n;
				wire[n++] = 1;
				continue;
			}
		}
		wire[n++] = body[i];
		wire[code]++;
	}
	wire[n++] = FRAME_DELIMITER;
	session_counts.frames++;
	send_raw(wire, n);
}

/* Actions: each takes what it needs of the input. */

static void raw(struct input *in)
{
	uint8_t bytes[64];
	uint32_t count = 1 + input_below(in, sizeof bytes);

	for (uint32_t i = 0; i < count; i++)
		bytes[i] = input_byte(in);
	send_raw(bytes, count);
	bytes[0] = FRAME_DELIMITER;
	send_raw(bytes, 1);
}

/* Longer than any frame. */
static void flood(struct input *in)
{
	uint8_t bytes[MOST_WIRE];
	uint32_t count = FRAME_MAX - 16 + input_below(in, MOST_WIRE - FRAME_MAX + 16);

	memset(bytes, 0xff, sizeof bytes);
	bytes[count - 1] = FRAME_DELIMITER;
	send_raw(bytes, count);
}

static void any_request(struct input *in)
{
	static const uint8_t opcodes[] = {
		OPCODE_HELLO, OPCODE_LOAD_BEGIN, OPCODE_LOAD, OPCODE_LOAD_END, OPCODE_GENERATE, OPCODE_ABORT,
		OPCODE_RESEND, OPCODE_STATS, OPCODE_RESET, OPCODE_READ, OPCODE_BAUD, OPCODE_STORE,
		OPCODE_VERIFY, OPCODE_BOARD, OPCODE_LANE, OPCODE_MEMORY, OPCODE_STREAM, OPCODE_SLOTS};
	uint32_t words[FRAME_MAX_PAYLOAD / 4];
	uint8_t opcode = input_byte(in), again = input_byte(in);
	uint32_t count = input_below(in, 8);

	opcode = opcode < 240 ? opcodes[opcode % sizeof opcodes] : opcode;
	for (uint32_t i = 0; i < count; i++)
		words[i] = input_word(in);
	send(opcode, words, 4 * count - (count != 0 && again >= 240 ? 1 : 0), again % 8 == 7);
}

/* A request of the right length, so that its values are looked at. */
static void whole_request(struct input *in)
{
	static const struct {
		uint8_t opcode, words;
	} kinds[] = {
		{OPCODE_HELLO, 2},
		{OPCODE_LOAD_BEGIN, 2},
		{OPCODE_LOAD, 3},
		{OPCODE_LOAD_END, 0},
		{OPCODE_ABORT, 0},
		{OPCODE_ABORT, 1},
		{OPCODE_RESEND, sizeof(struct wire_resend) / 4},
		{OPCODE_STATS, 0},
		{OPCODE_RESET, 1},
		{OPCODE_READ, 2},
		{OPCODE_BAUD, 2},
		{OPCODE_STORE, 1},
		{OPCODE_VERIFY, 1},
		{OPCODE_BOARD, 0},
		{OPCODE_LANE, 3},
		{OPCODE_MEMORY, 3},
		{OPCODE_STREAM, 2},
		{OPCODE_SLOTS, 2},
		{OPCODE_HELLO, 2},
	};
	uint32_t words[8], kind = input_below(in, sizeof kinds / sizeof kinds[0]);

	for (uint32_t i = 0; i < kinds[kind].words; i++)
		words[i] = input_word(in);
	if (kinds[kind].opcode == OPCODE_HELLO)
		words[0] = PROTOCOL_VERSION;
	/* A generation is known by its sequence number: one of the latest. */
	if (kinds[kind].opcode == OPCODE_ABORT)
		words[0] = sequence - input_below(in, 4);
	if (kinds[kind].opcode == OPCODE_RESEND && input_below(in, 2) != 0)
		words[1] = sequence - input_below(in, 4);
	send(kinds[kind].opcode, words, 4 * kinds[kind].words, input_below(in, 8) == 7);
	run(input_below(in, 16), 8);
}

/* Generations that run now. */
static uint32_t running(void)
{
	uint32_t count = 0;

	for (uint32_t i = 0; install_state() == MODEL_STATE_READY && i < slot_count(); i++)
		count += slot_at(i)->running;
	return count;
}

/* A request for a generation, in some slot; a tame one is mostly accepted, and longer. */
static void begin(struct input *in, bool tame)
{
	uint32_t words[FRAME_MAX_PAYLOAD / 4] = {0};
	struct wire_generate *g = (struct wire_generate *)words;
	uint32_t vocab = image_model()->vocab_size, odd = input_byte(in), ids = 1 + input_below(in, 24), before;

	if (tame)
		odd &= input_byte(in) & input_byte(in);
	g->flags = odd & 1 ? input_word(in) & 7 : 0;
	g->flags |= (input_byte(in) < 240 ? input_below(in, image_model()->slots.count) : input_word(in))
		    << PROTOCOL_SLOT_SHIFT;
	g->position = odd & 2 ? input_word(in) : 0;
	g->max_new = odd & 4 ? input_word(in) : input_below(in, tame ? 200 : 24);
	g->temperature = odd & 8 ? input_word(in) : 0;
	g->top_k = odd & 8 ? input_word(in) : 0;
	g->top_p = odd & 8 ? input_below(in, 65536) : 0;
	g->min_p = odd & 16 ? input_word(in) : 0;
	g->repetition_penalty = odd & 32 ? input_word(in) : SAMPLING_ONE;
	g->repetition_window = odd & 32 ? input_word(in) : 0;
	g->stop_count = odd & 64 ? input_word(in) : 0;
	g->speculate = odd & 128 ? input_below(in, 9) : 0;
	g->seed = odd * 0x9e3779b97f4a7c15ull;
	for (uint32_t i = 0; i < ids; i++)
		g->ids[i] = input_byte(in) < 250 && vocab != 0 ? input_byte(in) % vocab : input_word(in);
	before = running();
	send(OPCODE_GENERATE, words, sizeof *g + 4 * ids, input_below(in, 16) == 15);
	session_counts.together += before != 0 && running() > before;
}

static void generate(struct input *in)
{
	begin(in, false);
	run(8 * input_below(in, 32), 1 + input_below(in, 64));
}

/* So that several generations run at a time. */
static void divide(struct input *in)
{
	uint32_t words[2];

	words[0] = 2 + input_below(in, 3);
	words[1] = input_below(in, 2) != 0 ? 1 + input_below(in, 100) : 0;
	send(OPCODE_HELLO, (const uint32_t[]){PROTOCOL_VERSION, 1}, 8, false);
	run(64, 64);
	send(OPCODE_SLOTS, words, sizeof words, false);
	session_counts.divisions += install_state() == MODEL_STATE_READY && slot_count() == words[0];
}

/* Generations at a time, of which some are ended, asked for their tokens, or found to be in the way. */
static void together(struct input *in)
{
	divide(in);
	for (uint32_t count = 2 + input_below(in, 5); count != 0; count--) {
		uint32_t words[3] = {sequence - input_below(in, 4), sequence - input_below(in, 4), input_below(in, 4)};

		begin(in, true);
		run(input_below(in, 8), input_below(in, 16));
		switch (input_below(in, 8)) {
		case 0: send(OPCODE_ABORT, words, 4, false); break;
		case 1: send(OPCODE_RESEND, (const uint32_t[]){0, words[1], words[2]}, sizeof words, false); break;
		case 2: send(OPCODE_SLOTS, (const uint32_t[]){words[2], 0}, 8, false); break;
		}
	}
	run(8 * input_below(in, 64), 1 + input_below(in, 64));
}

static void fix_crcs(uint8_t *image, uint32_t room)
{
	struct image_header *h = (struct image_header *)image;

	if (h->payload_offset <= room && h->payload_bytes <= room - h->payload_offset)
		h->payload_crc = crc32_update(0, image + h->payload_offset, h->payload_bytes / BEAT_BYTES * BEAT_BYTES);
	if (h->payload_offset >= IMAGE_CHECKED_FROM && h->payload_offset <= room)
		h->header_crc = crc32_update(0, image + IMAGE_CHECKED_FROM,
					     (h->payload_offset - IMAGE_CHECKED_FROM) / BEAT_BYTES * BEAT_BYTES);
}

/* One of the images, with a few words of its header or directory changed, and with good CRCs nearly always. */
static void damaged_image(struct input *in, uint8_t *to, uint32_t room)
{
	uint32_t which = input_below(in, image_count), changes = input_below(in, 4);
	struct image_header *h = (struct image_header *)to;
	uint32_t directory, words_of_it;

	memcpy(to, images[which].bytes, images[which].size);
	directory = h->entries_offset / 4;
	words_of_it = h->entries_count * sizeof(struct image_entry) / 4;
	for (; changes != 0; changes--) {
		uint32_t *words = (uint32_t *)to;
		uint32_t at = input_byte(in) < 128 ? 1 + input_below(in, sizeof *h / 4 - 1) :
						     directory + input_below(in, words_of_it);

		if (input_byte(in) < 128)
			words[at] = input_word(in);
		else
			words[at] += (int32_t)(input_byte(in) % 5) - 2;
	}
	if (input_byte(in) < 240)
		fix_crcs(to, room);
}

static const uint32_t greeting[2] = {PROTOCOL_VERSION, 1};

/* End all generations, as a reset would: what they keep in DRAM is about to be overwritten. */
static void stop(void)
{
	send(OPCODE_HELLO, greeting, sizeof greeting, false);
	run(4, 64);
	llama2_abort();
}

static void boot(void)
{
	session_counts.images++;
	install_init();
	run(64, 64);
	send(OPCODE_HELLO, greeting, sizeof greeting, false);
}

static void image_in_memory(struct input *in)
{
	stop();
	damaged_image(in, fake_dram(), FAKE_DRAM_BYTES);
	boot();
}

static void image_in_flash(struct input *in)
{
	stop();
	damaged_image(in, fake_flash_bytes() + FAKE_FLASH_OFFSET, FAKE_FLASH_BYTES - FAKE_FLASH_OFFSET);
	memset(fake_dram(), 0, 64);
	boot();
	run(input_below(in, 256), 8);
}

void session_run(const uint8_t *data, size_t size)
{
	static void (*const actions[])(struct input *) = {
		raw, flood, any_request, any_request, whole_request, whole_request, whole_request, generate,
		generate, generate, together, together, divide, image_in_memory, image_in_flash};
	struct input in = {data, size};
	uint32_t columns;

	session_counts.sessions++;
	judge_begin();
	columns = 1 + input_below(&in, 4);
	fake_reset(columns);
	fake_candidate_sets(input_below(&in, 2) != 0 ? columns : 1);
	fake_flash(input_below(&in, 4) != 0 ? FAKE_FLASH_BYTES : 0, FAKE_FLASH_OFFSET);
	memcpy(fake_dram(), images[0].bytes, images[0].size);
	boot();
	while (in.left != 0)
		actions[input_below(&in, sizeof actions / sizeof actions[0])](&in);
	run(4, 64);
}
