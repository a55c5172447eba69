/* The model in DRAM: found there after a reset, brought from the flash, uploaded or checked, and made ready for
 * generations. */
#include "install.h"

#include <string.h>

#include "answer.h"
#include "board.h"
#include "generate.h"
#include "image.h"
#include "llama2.h"
#include "store.h"

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
void install_slots(void)
{
	struct llama2_limits limits;

	llama2_limits(&limits);
	generate_install(&image_model()->slots, image_model()->vocab_size, limits.columns, limits.candidate_sets);
}

static void install_end(void)
{
	if (model.refused == STATUS_OK)
		model.refused = image_end(&model.error);
	model.state = model.refused == STATUS_OK ?
			  MODEL_STATE_READY :
			  (model.refused == STATUS_BAD_MAGIC ? MODEL_STATE_NONE : MODEL_STATE_REFUSED);
	if (model.state == MODEL_STATE_READY)
		install_slots();
	else
		drop();
}

void install_init(void)
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

void install_poll(void)
{
	boot_poll();
	check_poll();
}

enum model_state install_state(void)
{
	return model.state;
}

enum status install_refused(void)
{
	return model.refused;
}

const struct wire_error *install_error(void)
{
	return &model.error;
}

bool install_checking(void)
{
	return check.running;
}

static void reply_loaded(void)
{
	struct wire_loaded loaded = {model.received, boot_id};

	reply(&loaded, sizeof loaded);
}

void install_load_begin(const struct wire_load_begin *begin)
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

void install_load(const struct wire_load *piece, uint32_t bytes)
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

void install_load_end(void)
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

void install_verify(const struct wire_verify *what)
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
