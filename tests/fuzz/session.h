/* A session of the fuzzer with the firmware, as its input's bytes have it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct session_counts {
	uint64_t sessions, frames, replies, refused, images, commands;
	uint64_t divisions; /* into several slots, which a model had room for */
	uint64_t together;  /* generations that were begun while another one ran */
};

extern struct session_counts session_counts;

/* One more image that sessions begin with, or damage; the first is a good one. */
void session_image(const uint8_t *bytes, uint32_t size);
/* Aborts where the firmware does what it must not. */
void session_run(const uint8_t *data, size_t size);
