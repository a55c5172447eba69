/* The requests of the host, each checked and answered; spec/llama2_spec/protocol.py says what they mean. */
#include "device.h"

#include <stddef.h>
#include <string.h>

#include "board.h"
#include "dram.h"
#include "flash.h"
#include "generate.h"
#include "image.h"
#include "link.h"
#include "llama2.h"
#include "passes.h"
#include "rate.h"
#include "restart.h"
#include "store.h"

#ifndef FIRMWARE_BUILD
#define FIRMWARE_BUILD "unknown"
#endif

#define MAX_DELAYS 64u /* of a lane; the boards have 8 and 32 */

static struct {
	enum model_state state;
	enum status refused;      /* why, if state is REFUSED */
	struct wire_error error;
	uint32_t total;           /* upload: bytes of the image */
	uint32_t crc;             /* upload: of the file */
	uint32_t received;        /* upload: bytes in DRAM */
} model;

/* After reset: DRAM's image is checked; if it is none, the flash's is copied there and checked. An upload's is checked,
 * too. */
static enum { CHECK_DRAM,
	      RESTORE,
	      CHECK_RESTORED,
	      CHECK_LOADED } boot;

/* The core's check of the image: after LOAD_END (model.state is BOOTING then), or of a model in use. */
static struct {
	bool running;
	uint32_t since;           /* cycle counter when it began */
	uint32_t cycles;          /* what the last one took */
} check;

static uint32_t boot_id;          /* of the first HELLO since reset; 0 before */
static const struct frame_header *request;

static void reply(const void *payload, uint32_t bytes)
{
	link_send(request->opcode, STATUS_OK, link_sequence(), payload, bytes);
}

static void refuse_with(enum status status, const struct wire_error *error)
{
	struct wire_error answer = *error;

	answer.boot = boot_id;
	link_send(request->opcode, status, link_sequence(), &answer, sizeof answer);
}

static void refuse(enum status status, enum subject subject, uint32_t value, uint32_t limit)
{
	struct wire_error error = {subject, value, limit};

	refuse_with(status, &error);
}

/* Begin to check the image in DRAM, of which present bytes are there, and make it the model. */
static void install_begin(uint32_t present)
{
	struct llama2_limits limits;

	llama2_limits(&limits);
	model.refused = image_begin(&limits, present, &model.error);
}

/* It is refused already, or the core has checked the weights. */
static bool install_ready(void)
{
	return model.refused != STATUS_OK || !llama2_busy();
}

/* No model: nothing can be generated. */
static void drop(void)
{
	static const struct slot_division none = {.count = 1};

	generate_install(&none, 0, 1, 1);
}

/* The model's slots, empty. */
static void begin_slots(void)
{
	struct llama2_limits limits;

	llama2_limits(&limits);
	generate_install(&image_model()->slots, image_model()->vocab_size, limits.columns, limits.candidate_sets);
}

static void install_end(void)
{
	if (model.refused == STATUS_OK)
		model.refused = image_end(&model.error);
	model.state = model.refused == STATUS_OK ? MODEL_STATE_READY :
						   (model.refused == STATUS_BAD_MAGIC ? MODEL_STATE_NONE : MODEL_STATE_REFUSED);
	if (model.state == MODEL_STATE_READY)
		begin_slots();
	else
		drop();
}

void device_init(void)
{
	drop();
	if (board_dram_ok()) {
		model.state = MODEL_STATE_BOOTING;
		boot = CHECK_DRAM;
		install_begin(board_dram_bytes());
	}
}

static void boot_poll(void)
{
	if (model.state != MODEL_STATE_BOOTING)
		return;
	if (boot == RESTORE) {
		enum restored restored = restore_poll();

		if (restored == RESTORE_DONE)
			install_begin(restore_bytes());
		if (restored != RESTORE_RUNNING)
			boot = CHECK_RESTORED;
	} else if (install_ready()) {
		install_end();
		check.cycles = llama2_cycles() - check.since;
		if (boot == CHECK_DRAM && model.state != MODEL_STATE_READY) {
			model.state = MODEL_STATE_BOOTING;
			boot = RESTORE;
			restore_begin();
		}
	}
}

/* A model in use is checked: what is damaged is none any more. */
static void check_poll(void)
{
	if (!check.running || llama2_busy())
		return;
	check.running = false;
	check.cycles = llama2_cycles() - check.since;
	model.refused = image_end(&model.error);
	if (model.refused != STATUS_OK) {
		model.state = MODEL_STATE_REFUSED;
		drop();
	}
}

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
	device.model_state = model.state;
	device.link_damaged = link_damaged();
	device.boot = boot_id;
	device.restart = restart_why();
	strncpy(device.firmware, FIRMWARE_BUILD, sizeof device.firmware);
	if (model.state == MODEL_STATE_REFUSED) {
		device.model_status = model.refused;
		memcpy(device.model_error, &model.error, sizeof device.model_error);
	}
	if (model.state == MODEL_STATE_READY) {
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

static void reply_loaded(void)
{
	struct wire_loaded loaded = {model.received, boot_id};

	reply(&loaded, sizeof loaded);
}

static void load_begin(const struct wire_load_begin *begin)
{
	if (!board_dram_ok()) {
		refuse(STATUS_NO_DRAM, SUBJECT_NONE, 0, 0);
		return;
	}
	if (begin->total > board_dram_bytes()) {
		refuse(STATUS_NO_MEMORY, SUBJECT_NONE, begin->total, board_dram_bytes());
		return;
	}
	/* The same upload again goes on where it stopped. */
	if (model.state != MODEL_STATE_LOADING || begin->total != model.total || begin->crc != model.crc)
		model.received = 0;
	model.state = MODEL_STATE_LOADING;
	model.total = begin->total;
	model.crc = begin->crc;
	drop();
	store_end();
	reply_loaded();
}

static void load(const struct wire_load *piece, uint32_t bytes)
{
	if (model.state != MODEL_STATE_LOADING) {
		refuse(STATUS_NOT_LOADING, SUBJECT_NONE, 0, 0);
		return;
	}
	if (piece->offset > model.received) {
		refuse(STATUS_OUT_OF_ORDER, SUBJECT_NONE, piece->offset, model.received);
		return;
	}
	if (bytes > model.total - piece->offset || (bytes % 4 != 0 && bytes != model.total - piece->offset) ||
	    piece->offset % 4 != 0) {
		refuse(STATUS_BAD_VALUE, SUBJECT_LENGTH, piece->offset + bytes, model.total);
		return;
	}
	/* A piece that came before is only acknowledged again. */
	if (piece->offset == model.received) {
		memcpy(board_dram() + piece->offset, piece->data, bytes);
		model.received += bytes;
	}
	reply_loaded();
}

/* How the last check of the image ended, or that one is running. */
static void reply_verified(void)
{
	bool installing = model.state == MODEL_STATE_BOOTING && boot == CHECK_LOADED;
	struct wire_verified verified = {.running = check.running || installing, .boot = boot_id};

	if (!verified.running && model.state != MODEL_STATE_READY) {
		refuse_with(model.refused == STATUS_OK ? STATUS_NO_MODEL : model.refused, &model.error);
		return;
	}
	if (!verified.running) {
		verified.crc = image_model()->payload_crc;
		verified.cycles = check.cycles;
	}
	reply(&verified, sizeof verified);
}

static void load_end(void)
{
	if (model.state == MODEL_STATE_LOADING && model.received != model.total) {
		refuse(STATUS_INCOMPLETE, SUBJECT_NONE, model.received, model.total);
		return;
	}
	/* Asked again, it tells how far the check is, and keeps the cache of a model that is there already. */
	if (model.state == MODEL_STATE_LOADING) {
		check.since = llama2_cycles();
		board_dram_publish();
		install_begin(model.total);
		model.state = MODEL_STATE_BOOTING;
		boot = CHECK_LOADED;
	}
	reply_verified();
}

static void verify(const struct wire_verify *what)
{
	if (what->begin && model.state == MODEL_STATE_READY && !check.running) {
		check.since = llama2_cycles();
		model.refused = image_verify(&model.error);
		check.running = true;
		if (model.refused != STATUS_OK) {
			check.running = false;
			model.state = MODEL_STATE_REFUSED;
			drop();
		}
	}
	reply_verified();
}

static void generate(const struct wire_generate *options, uint32_t id_bytes)
{
	struct wire_accepted accepted = {.boot = boot_id};
	struct wire_error error = {0};
	enum status status = STATUS_BUSY;

	if (!check.running || generate_is(link_sequence()))
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

	if (model.state != MODEL_STATE_READY) {
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
		begin_slots();
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
		status = model.state == MODEL_STATE_READY ? store_begin(image_model()->bytes, &error) : STATUS_NO_MODEL;
	store_report(&stored);
	stored.boot = boot_id;
	if (status == STATUS_OK)
		reply(&stored, sizeof stored);
	else
		refuse_with(status, &error);
}

static void board(void)
{
	struct wire_board answer = {.dram_status = board_dram_ok(),
				    .lanes = board_lanes(),
				    .delays = board_delays(),
				    .bitslips = board_bitslips(),
				    .flash_id = flash_id(),
				    .boot = boot_id};

	board_describe(&answer);
	dram_failed(&answer);
	reply(&answer, sizeof answer);
}

static void lane(const struct wire_lane *what)
{
	struct wire_eye eye = {.boot = boot_id};
	uint32_t errors[MAX_DELAYS];

	if (what->lane >= board_lanes() || what->bitslip >= board_bitslips() || board_delays() > MAX_DELAYS) {
		refuse(STATUS_BAD_VALUE, SUBJECT_LANE, what->lane, board_lanes());
		return;
	}
	dram_scan(what, &eye, errors);
	link_send2(request->opcode, STATUS_OK, link_sequence(), &eye, sizeof eye, errors, board_delays() * sizeof errors[0]);
}

#define NEVER ((uint64_t)1 << 40) /* longer than any DRAM */

/* These bytes lie within DRAM, and begin and step at multiples of unit; refuses them otherwise. */
static bool piece(uint32_t offset, uint64_t length, uint32_t steps, uint32_t unit)
{
	bool good = (offset | steps) % unit == 0 && offset + length <= board_dram_bytes();

	if (!good)
		refuse(STATUS_BAD_VALUE, SUBJECT_PLACE, offset, board_dram_bytes());
	return good;
}

static void memory(const struct wire_memory *what)
{
	struct wire_tested tested = {.boot = boot_id};
	bool good = what->count - 1 < PROTOCOL_MAX_PLACES && what->step != 0;
	uint64_t length = good ? (uint64_t)(what->count - 1) * what->step + PROTOCOL_PLACE_BYTES : NEVER;

	if (!piece(what->offset, length, what->step, PROTOCOL_PLACE_BYTES))
		return;
	dram_test(what, &tested);
	reply(&tested, sizeof tested);
}

static void stream(const struct wire_stream *what)
{
	struct wire_streamed streamed = {.boot = boot_id};
	uint32_t *counters = &streamed.cycles; /* beats and starved follow, as in the core */

	if (!piece(what->offset, what->length - 1 < PROTOCOL_MAX_STREAM ? what->length : NEVER, what->length, BEAT_BYTES))
		return;
	for (unsigned i = 0; i < 3; i++)
		counters[i] = -llama2_counter(LLAMA2_PHASE_OTHER, i);
	llama2_crc_begin(what->offset / BEAT_BYTES, what->length / BEAT_BYTES);
	while (llama2_busy())
		;
	for (unsigned i = 0; i < 3; i++)
		counters[i] += llama2_counter(LLAMA2_PHASE_OTHER, i);
	streamed.crc = llama2_crc();
	reply(&streamed, sizeof streamed);
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

	return (check.running && (tests || opcode == OPCODE_LOAD_BEGIN)) || (model.state == MODEL_STATE_BOOTING && tests);
}

static bool acceptable(void)
{
	for (unsigned i = 0; i < sizeof requests / sizeof requests[0]; i++) {
		uint32_t extra = request->length - requests[i].bytes;

		if (requests[i].opcode != request->opcode)
			continue;
		if (request->length < requests[i].bytes || (requests[i].item == 0 ? extra != 0 : extra % requests[i].item != 0)) {
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
	case OPCODE_LOAD_BEGIN: load_begin(payload); break;
	case OPCODE_LOAD: load(payload, request->length - sizeof(struct wire_load)); break;
	case OPCODE_LOAD_END: load_end(); break;
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
	case OPCODE_VERIFY: verify(payload); break;
	case OPCODE_BOARD: board(); break;
	case OPCODE_LANE: lane(payload); break;
	case OPCODE_MEMORY: memory(payload); break;
	case OPCODE_STREAM: stream(payload); break;
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
	boot_poll();
	check_poll();
	if (++polls % 256 == 0)
		(void)uptime();
	rate_poll();
	generate_poll();
	store_poll();
}
