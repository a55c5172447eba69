/* Frames over the serial line: COBS, CRC-32, buffers in both directions. Nothing here waits but link_send. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <generated/llama2_spec.h>

/* Move bytes in both directions; true when a good frame waits, until link_release. */
bool link_poll(void);
/* The frame that waits: its header, and the sequence number in one piece. The payload is aligned to 8 bytes. */
const struct frame_header *link_header(void);
uint32_t link_sequence(void);
const void *link_payload(void);
/* Forget it, and receive the next. */
void link_release(void);

/* A frame with this much payload can be sent without waiting. */
bool link_room(uint32_t payload_bytes);
/* Send a frame of two pieces (either may be empty); waits for room in the buffer. */
void link_send2(uint8_t opcode, uint8_t status, uint32_t sequence, const void *first, uint32_t first_bytes,
		const void *second, uint32_t second_bytes);
void link_send(uint8_t opcode, uint8_t status, uint32_t sequence, const void *payload, uint32_t bytes);

/* Everything that was sent has left. */
bool link_sent(void);

/* Frames that arrived damaged since reset. */
uint32_t link_damaged(void);
