/* The commands of one token, from a table that is built once when a model is installed. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <generated/llama2_spec.h>

#define PROGRAM_MAX_COLUMNS 8u

/* What every position of a model has in common. */
struct program_shape {
	uint32_t n_layers;
	uint32_t columns;   /* positions that the core takes at a time */
	uint32_t kv_base;   /* first beat of the cache */
	uint32_t row_beats; /* beats of a cache row */
	uint32_t seq_len;
};

/* One pass over the weights. */
struct program_step {
	uint32_t position;
	uint32_t columns;  /* consecutive positions, at most the core's */
	uint32_t tokens[PROGRAM_MAX_COLUMNS];
	bool argmax;       /* the token is the last argmax instead; one column */
	bool awaited;      /* the tokens come later, by llama2_token_write */
	bool classify;     /* end with the classifier, on the last column */
	bool every;        /* a result of every column instead; neither keep nor dump */
	bool keep;         /* keep candidates and mass */
	bool dump;         /* hand every logit over */
};

/* Begin a program; then give it the image's tensors in the order of the directory. */
void program_begin(const struct program_shape *shape);
/* False if this is not the tensor that comes now. */
bool program_tensor(const struct image_entry *entry);
/* All tensors have come, an embedding of its own too unless it is tied to the classifier. */
bool program_complete(bool tied);

/* Begin to push a step; the last one must have been pushed. */
void program_start(const struct program_step *step);
/* Push as much as the queue takes; true when all of the step has been pushed. */
bool program_push(void);
