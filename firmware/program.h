/* The commands of one token, from a table that is built once when a model is installed. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <generated/llama2_spec.h>

#define PROGRAM_MAX_COLUMNS 8u

/* What every position of a model has in common. */
struct program_shape {
	uint32_t n_layers;
	uint32_t columns;   /* columns that the core takes at a time */
	uint32_t kv_base;   /* first beat of the cache */
	uint32_t row_beats; /* beats of a cache row */
	uint32_t seq_len;   /* rows from a layer of a slot to its next layer */
};

/* One column of a step: a token of a sequence, at its position. */
struct program_column {
	uint32_t token;
	uint32_t position;
	uint32_t segment; /* the slot of the sequence: its first beat in the cache, which is that of row 0 of layer 0 */
};

/* One pass over the weights. Columns of the same segment are neighbours, and their positions follow each other. */
struct program_step {
	uint32_t count; /* columns, at least one and at most the core's */
	struct program_column columns[PROGRAM_MAX_COLUMNS];
	bool argmax;    /* the token is the last argmax instead; one column */
	uint8_t awaited; /* columns, a bit each, whose token comes later, by llama2_token_write */
	bool classify;  /* end with the classifier: a result of column `first`, and of each behind it */
	uint32_t first;
	bool keep;      /* keep candidates and mass: of one result, or of each where the core has sets for all */
	bool dump;      /* hand every logit over; of one result */
};

/* Begin a program; then give it the image's tensors in the order of the directory. */
void program_begin(const struct program_shape *shape);
/* False if this is not the tensor that comes now. */
bool program_tensor(const struct image_entry *entry);
/* All tensors have come, an embedding of its own too unless it is tied to the classifier. */
bool program_complete(bool tied);

/* Begin to push a step, which stays the caller's until it is pushed; the last one must have been. */
void program_start(const struct program_step *step);
/* Push as much as the queue takes, its classifier only where that may begin; true when all of the step has been pushed.
 */
bool program_push(bool classifier);
/* Slots have so many rows a layer from now on. */
void program_slots(uint32_t seq_len);
