/* What a generation tells the host: tokens, logits and its end, kept so that a lost event can be sent again. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <generated/llama2_spec.h>

/* A generation begins: its GENERATE's sequence number, the position of its first token; logits begin at a position. */
void report_begin(uint32_t sequence, uint32_t first, uint32_t logit_position, uint32_t vocab_size);
/* Forget everything, unsent or not. */
void report_forget(void);

/* There is room for a token; otherwise the link or the host's acknowledgement has to catch up first. */
bool report_room(void);
void report_token(uint32_t token, uint32_t cycles);
/* A token of the last PROTOCOL_TOKEN_RING. */
uint32_t report_token_at(uint32_t index);
/* Tokens so far. */
uint32_t report_count(void);

/* The next logit; waits for the link now and then. */
void report_logit(int32_t logit);

/* The generation has ended. */
void report_done(const struct wire_done *done);
/* Send what waits, as far as the link has room. */
void report_poll(void);
/* The host has not been sent everything yet. */
bool report_pending(void);
/* Answer a RESEND of this sequence number: its tokens, then DONE if it has been sent. Those before are acknowledged.
 * Returns STATUS_OK, or why not, with the numbers in error. */
enum status report_resend(uint32_t sequence, const struct wire_resend *resend, struct wire_error *error);
/* Tokens sent again since reset. */
uint32_t report_resent(void);
