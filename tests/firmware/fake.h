/* A core and a board for firmware on a PC: commands are recorded and "executed" by a toy model. */
#pragma once

#include <stdint.h>

#include "llama2.h"

#define FAKE_DRAM_BYTES (4u << 20)
#define FAKE_LOG 65536u
#define FAKE_BAUD 115200u
#define FAKE_SCRIPT 4096u

/* Bytes from the host; as many as the receiver takes. */
uint32_t fake_feed(const uint8_t *bytes, uint32_t size);
/* Bytes to the host. */
uint32_t fake_drain(uint8_t *bytes, uint32_t size);
/* Bytes that the transmitter takes before fake_drain. */
void fake_transmitter(uint32_t room);
/* The host's end of the line has this rate; at another than the firmware's, bytes arrive as others. */
void fake_rate(uint32_t rate);
/* Time passes without anything else. */
void fake_wait(uint32_t cycles);
/* Execute up to count queued commands. */
void fake_execute(uint32_t count);
/* Reset the core and the line, not DRAM; columns of the core. */
void fake_reset(uint32_t columns);
uint8_t *fake_dram(void);
/* Commands pushed since reset: their number, and the words. */
uint32_t fake_log_count(void);
const struct llama2_command *fake_log(void);
uint32_t fake_model_word(uint32_t index);
uint32_t fake_rope_word(uint32_t index);
/* What the toy model says by heart: its argmax at each position where the whole context is the script's. */
void fake_script(const uint32_t *tokens, uint32_t count);
/* The toy model: logit of id after token at position, Q14.18. */
int32_t fake_logit(uint32_t token, uint32_t position, uint32_t id);
