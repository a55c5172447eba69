/* A model in the board's flash: written from DRAM in the background, and copied back to DRAM after reset. */
#pragma once

#include <stdint.h>

#include <generated/llama2_spec.h>

/* Begin to write the first bytes of DRAM, which are an image, to flash; refused with the numbers in error. */
enum status store_begin(uint32_t bytes, struct wire_error *error);
/* End it: DRAM is about to change. The flash then holds no image, unless nothing was missing. */
void store_end(void);
/* How far it is. */
void store_report(struct wire_stored *stored);
/* Do a little of it; never waits. */
void store_poll(void);

enum restored { RESTORE_RUNNING,
		RESTORE_NONE,
		RESTORE_DONE };

/* Begin to copy the flash's image to DRAM, which stays as it is if there is none. */
void restore_begin(void);
/* Copy a little; never waits. */
enum restored restore_poll(void);
/* DONE: bytes of the image that the flash has; if its header was good, they are in DRAM now. */
uint32_t restore_bytes(void);
