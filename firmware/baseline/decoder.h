/* The decoder of spec/llama2_spec/golden.py in C, on any CPU: the baseline that the core is compared with. */
#pragma once

#include <stdint.h>

#include <generated/llama2_spec.h>

/* Take the model image at the start of dram for the following steps; STATUS_TOO_LARGE for what static buffers or
 * dram_bytes cannot hold. The K/V cache lies behind the image, laid out as the core's. */
enum status decoder_install(uint8_t *dram, uint32_t dram_bytes);
uint32_t decoder_vocab_size(void);
/* Decode a token at position; the earlier ones' rows are in the cache. vocab_size logits, Q14.18. */
void decoder_step(uint32_t token, uint32_t position, int32_t *logits);
