/* Products of packed matrices and quantised vectors, and single rows of an embedding. */
#pragma once

#include <stdint.h>

#include <generated/llama2_spec.h>

#include "vector.h"

/* Takes a row's sum: 48 bits, relative to the vector's largest exponent and the tensor's. */
typedef void (*matrix_sink)(uint32_t row, int64_t sum);

/* Every row of the tensor, whose beats are at data, times the vector, in order. */
void matrix_product(const struct image_entry *entry, const uint8_t *data, const struct vector *vector,
		    matrix_sink sink);
/* One row's values, n of them: codes times scales, below 2**20. */
void matrix_row(const struct image_entry *entry, const uint8_t *data, uint32_t row, uint32_t n, int32_t *values);
