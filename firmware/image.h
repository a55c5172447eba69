/* The model image at the start of DRAM: checked, then made the core's model. */
#pragma once

#include <stdint.h>

#include "llama2.h"
#include "slot.h"

/* What the rest wants to know of the model that was installed. */
struct image_model {
	uint32_t bytes;
	uint32_t header_crc;
	uint32_t payload_crc;
	uint32_t vocab_size;
	uint32_t seq_len;
	uint32_t n_layers;
	uint32_t row_beats; /* of a position in the cache of a layer */
	uint32_t kv_base;   /* first beat of the cache */
	uint32_t kv_beats;
	struct slot_division slots;
	char name[32];     /* how its provenance begins; not ended if it is that long */
};

/* Check the image in DRAM, of which present bytes are there, against itself and against the core's limits; if it is
 * good, write the model's constants and its program, and have the core begin to check the weights. Returns STATUS_OK,
 * or why not, with the numbers in error. */
enum status image_begin(const struct llama2_limits *limits, uint32_t present, struct wire_error *error);
/* The rest, once the core is not busy any more: the weights are undamaged. */
enum status image_end(struct wire_error *error);
/* Begin to check that the model's weights in DRAM are what they were, and check the rest; image_end has the result. */
enum status image_verify(struct wire_error *error);
/* Divide the cache into slots, each as long as length; STATUS_NO_MEMORY with the bytes in error if DRAM is too small,
 * and then nothing has changed. */
enum status image_divide(uint32_t count, uint32_t length, struct wire_error *error);
/* The model that was installed last. */
const struct image_model *image_model(void);
