/* The requests of the host, each checked and answered; spec/llama2_spec/protocol.py says what they mean. */
#include "device.h"

#include <stddef.h>
#include <string.h>

#include "answer.h"
#include "board.h"
#include "generate.h"
#include "image.h"
#include "inspect.h"
#include "install.h"
#include "link.h"
#include "llama2.h"
#include "passes.h"
#include "rate.h"
#include "restart.h"
#include "store.h"

#ifndef FIRMWARE_BUILD
#define FIRMWARE_BUILD "unknown"
#endif

/* Cycles since reset. Called more often than the counter of 32 bits wraps, which it does not tell. */
static uint64_t uptime(void)
{
	static uint32_t last, wraps;
	uint32_t now = llama2_cycles();

	wraps += now < last;
	last = now;
	return (uint64_t)wraps << 32 | now;
}

/* Another version's client reads no more than this of a refusal. */
static void refuse_version(uint32_t version)
{
	struct wire_error error = {SUBJECT_NONE, version, PROTOCOL_VERSION};

	link_send(request->opcode, STATUS_BAD_VERSION, link_sequence(), &error, offsetof(struct wire_error, boot));
}

static void hello(const struct wire_hello *hello)
{
	const struct image_model *image = image_model();
	struct wire_device device = {0};
	struct llama2_limits limits;

	if (hello->version != PROTOCOL_VERSION || request->length != sizeof *hello) {
		refuse_version(hello->version);
		return;
	}
	if (boot_id == 0)
		boot_id = hello->nonce != 0 ? hello->nonce : llama2_cycles() | 1;
	generate_forget();
	llama2_limits(&limits);
	device.version = PROTOCOL_VERSION;
	device.clock_hz = board_clock_hz();
	device.uptime = uptime();
	device.dram_bytes = board_dram_bytes();
	device.dram_status = board_dram_ok();
	device.core_version = limits.version;
	device.columns = limits.columns;
	device.lanes = limits.lanes;
	device.candidates = limits.candidates;
	device.max_dim = limits.dim;
	device.max_hidden_dim = limits.hidden_dim;
	device.max_head_dim = limits.head_dim;
	device.max_kv_dim = limits.kv_dim;
	device.max_heads = limits.heads;
	device.max_vocab_size = limits.vocab_size;
	device.max_seq_len = limits.seq_len;
	device.max_layers = PROTOCOL_MAX_LAYERS;
	device.model_state = install_state();
	device.link_damaged = link_damaged();
	device.boot = boot_id;
	device.restart = restart_why();
	strncpy(device.firmware, FIRMWARE_BUILD, sizeof device.firmware);
	if (install_state() == MODEL_STATE_REFUSED) {
		device.model_status = install_refused();
		memcpy(device.model_error, install_error(), sizeof device.model_error);
	}
	if (install_state() == MODEL_STATE_READY) {
		device.image_bytes = image->bytes;
		device.payload_crc = image->payload_crc;
		device.header_crc = image->header_crc;
		device.vocab_size = image->vocab_size;
		device.seq_len = image->slots.length;
		device.kv_positions = slot_at(0)->kv_positions;
		device.kv_base = image->kv_base;
		device.kv_beats = image->kv_beats;
		memcpy(device.name, image->name, sizeof device.name);
	}
	reply(&device, sizeof device);
}

static void generate(const struct wire_generate *options, uint32_t id_bytes)
{
	struct wire_accepted accepted = {.boot = boot_id};
	struct wire_error error = {0};
	enum status status = STATUS_BUSY;

	if (!install_checking() || generate_is(link_sequence()))
		status = generate_begin(link_sequence(), options, id_bytes / 4, &accepted.position, &error);
	if (status == STATUS_OK)
		reply(&accepted, sizeof accepted);
	else
		refuse_with(status, &error);
}

static void resend(const struct wire_resend *what)
{
	struct wire_error error;
	enum status status = generate_resend(link_sequence(), what, &error);

	if (status != STATUS_OK)
		refuse_with(status, &error);
}

/* How the cache is divided, after a change if one is asked for. */
static void slots(const struct wire_slots *what)
{
	uint32_t length = what->length != 0 ? what->length : image_model()->seq_len;
	struct wire_slotted slotted = {.boot = boot_id};
	struct wire_error error;

	if (install_state() != MODEL_STATE_READY) {
		refuse(STATUS_NO_MODEL, SUBJECT_NONE, 0, 0);
		return;
	}
	if (what->count > PROTOCOL_MAX_SLOTS) {
		refuse(STATUS_BAD_VALUE, SUBJECT_SLOT, what->count, PROTOCOL_MAX_SLOTS);
		return;
	}
	if (length > image_model()->seq_len) {
		refuse(STATUS_BAD_VALUE, SUBJECT_SEQ_LEN, length, image_model()->seq_len);
		return;
	}
	if (what->count != 0 && (what->count != slot_count() || length != slot_length())) {
		if (image_divide(what->count, length, &error) != STATUS_OK) {
			refuse_with(STATUS_NO_MEMORY, &error);
			return;
		}
		install_slots();
	}
	slotted.count = slot_count();
	slotted.length = slot_length();
	reply(&slotted, sizeof slotted);
}

static void stats(void)
{
	struct wire_stats stats = {0};

	stats.cycles = llama2_cycles();
	stats.stores = llama2_stores();
	stats.link_damaged = link_damaged();
	stats.interrupts = llama2_interrupts();
	generate_stats(&stats);
	for (uint32_t phase = 0; phase < LLAMA2_PHASES; phase++)
		for (uint32_t counter = 0; counter < LLAMA2_COUNTERS; counter++)
			stats.counters[phase * LLAMA2_COUNTERS + counter] = llama2_counter(phase, counter);
	reply(&stats, sizeof stats);
}

static void reset(const struct wire_reset *what)
{
	if (what->flags & RESET_FLAG_COUNTERS) {
		llama2_counters_clear();
		generate_clear();
	}
	if (what->flags & RESET_FLAG_ERRORS)
		passes_errors_clear();
	reply(0, 0);
}

static void read(const struct wire_read *what)
{
	if (what->length > FRAME_MAX_PAYLOAD || what->length % 4 != 0 || what->offset % 4 != 0) {
		refuse(STATUS_BAD_VALUE, SUBJECT_LENGTH, what->length, FRAME_MAX_PAYLOAD);
	} else if (what->offset > board_dram_bytes() || what->length > board_dram_bytes() - what->offset) {
		refuse(STATUS_OUT_OF_RANGE, SUBJECT_NONE, what->offset, board_dram_bytes());
	} else {
		board_dram_refresh();
		reply(board_dram() + what->offset, what->length);
	}
}

static void baud(const struct wire_baud *what)
{
	struct wire_line line;
	struct wire_error error;
	enum status status = rate_request(what, &line, &error);

	if (status == STATUS_OK)
		reply(&line, sizeof line);
	else
		refuse_with(status, &error);
}

static void store(const struct wire_store *what)
{
	struct wire_stored stored;
	struct wire_error error = {0};
	enum status status = STATUS_OK;

	if (what->begin)
		status =
		    install_state() == MODEL_STATE_READY ? store_begin(image_model()->bytes, &error) : STATUS_NO_MODEL;
	store_report(&stored);
	stored.boot = boot_id;
	if (status == STATUS_OK)
		reply(&stored, sizeof stored);
	else
		refuse_with(status, &error);
}

/* Payload of each request: least bytes, size of the items that may follow, and whether a generation may be running. */
static const struct {
	uint8_t opcode, bytes, item, busy;
} requests[] = {
	{OPCODE_HELLO, sizeof(uint32_t), 1, 1}, /* at least the version, by which it is judged */
	{OPCODE_LOAD_BEGIN, sizeof(struct wire_load_begin), 0, 0},
	{OPCODE_LOAD, sizeof(struct wire_load), 1, 0},
	{OPCODE_LOAD_END, 0, 0, 0},
	{OPCODE_GENERATE, sizeof(struct wire_generate), 4, 1},
	{OPCODE_ABORT, 0, sizeof(struct wire_abort), 1},
	{OPCODE_RESEND, sizeof(struct wire_resend), 0, 1},
	{OPCODE_STATS, 0, 0, 1},
	{OPCODE_RESET, sizeof(struct wire_reset), 0, 0},
	{OPCODE_READ, sizeof(struct wire_read), 0, 0},
	{OPCODE_BAUD, sizeof(struct wire_baud), 0, 0},
	{OPCODE_STORE, sizeof(struct wire_store), 0, 1},
	{OPCODE_VERIFY, sizeof(struct wire_verify), 0, 0},
	{OPCODE_BOARD, 0, 0, 1},
	{OPCODE_LANE, sizeof(struct wire_lane), 0, 0},
	{OPCODE_MEMORY, sizeof(struct wire_memory), 0, 0},
	{OPCODE_STREAM, sizeof(struct wire_stream), 0, 0},
	{OPCODE_SLOTS, sizeof(struct wire_slots), 0, 0},
};

/* The core and DRAM are taken: by the check of a model in use, or of what was found or loaded. */
static bool taken(uint8_t opcode)
{
	bool tests = opcode == OPCODE_LANE || opcode >= OPCODE_MEMORY;

	return (install_checking() && (tests || opcode == OPCODE_LOAD_BEGIN)) ||
	       (install_state() == MODEL_STATE_BOOTING && tests);
}

static bool acceptable(void)
{
	for (unsigned i = 0; i < sizeof requests / sizeof requests[0]; i++) {
		uint32_t extra = request->length - requests[i].bytes;

		if (requests[i].opcode != request->opcode)
			continue;
		if (request->length < requests[i].bytes ||
		    (requests[i].item == 0 ? extra != 0 : extra % requests[i].item != 0)) {
			refuse(STATUS_BAD_LENGTH, SUBJECT_NONE, request->length, requests[i].bytes);
			return false;
		}
		if ((generate_running() || taken(request->opcode)) && !requests[i].busy) {
			refuse(STATUS_BUSY, SUBJECT_NONE, 0, 0);
			return false;
		}
		return true;
	}
	refuse(STATUS_BAD_OPCODE, SUBJECT_NONE, request->opcode, 0);
	return false;
}

static void handle(void)
{
	const void *payload = link_payload();

	request = link_header();
	if (!acceptable())
		return;
	switch (request->opcode) {
	case OPCODE_HELLO: hello(payload); break;
	case OPCODE_LOAD_BEGIN: install_load_begin(payload); break;
	case OPCODE_LOAD: install_load(payload, request->length - sizeof(struct wire_load)); break;
	case OPCODE_LOAD_END: install_load_end(); break;
	case OPCODE_GENERATE: generate(payload, request->length - sizeof(struct wire_generate)); break;
	case OPCODE_ABORT:
		generate_abort(request->length != 0 ? ((const struct wire_abort *)payload)->generation : 0);
		reply(0, 0);
		break;
	case OPCODE_RESEND: resend(payload); break;
	case OPCODE_STATS: stats(); break;
	case OPCODE_RESET: reset(payload); break;
	case OPCODE_READ: read(payload); break;
	case OPCODE_BAUD: baud(payload); break;
	case OPCODE_STORE: store(payload); break;
	case OPCODE_VERIFY: install_verify(payload); break;
	case OPCODE_BOARD: inspect_board(); break;
	case OPCODE_LANE: inspect_lane(payload); break;
	case OPCODE_MEMORY: inspect_memory(payload); break;
	case OPCODE_STREAM: inspect_stream(payload); break;
	case OPCODE_SLOTS: slots(payload); break;
	}
}

void device_poll(void)
{
	static uint32_t polls;

	if (link_poll()) {
		handle();
		link_release();
	}
	install_poll();
	if (++polls % 256 == 0)
		(void)uptime();
	rate_poll();
	generate_poll();
	store_poll();
}
