/* What a slot's generation tells the host: tokens, logits and its end, kept so that a lost event can be sent again. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <generated/llama2_spec.h>

#define REPORT_ENTRY_WORDS 2u /* token, cycles */

enum report_progress { REPORT_SILENT,
		       REPORT_RUNNING,
		       REPORT_ENDED,
		       REPORT_DONE_SENT };

/* Of a slot's last generation; its members are report.c's. */
struct report {
	enum report_progress progress;
	uint32_t sequence;
	uint32_t first; /* position of token 0 */
	uint32_t count;
	uint32_t sent;
	uint32_t acknowledged;
	uint32_t entries[PROTOCOL_TOKEN_RING][REPORT_ENTRY_WORDS];
	struct wire_done done;

	uint32_t vocab_size;
	uint32_t logit_position;
	uint32_t logit_first;
	uint32_t logit_count;
};

/* A generation begins: its GENERATE's sequence number, the position of its first token; logits begin at a position. */
void report_begin(struct report *report, uint32_t sequence, uint32_t first, uint32_t logit_position,
		  uint32_t vocab_size);
/* Forget everything, unsent or not. */
void report_forget(struct report *report);

/* There is room for a token behind so many more; otherwise the link or the host's acknowledgement has to catch up
 * first. */
bool report_room(const struct report *report, uint32_t more);
void report_token(struct report *report, uint32_t token, uint32_t cycles);
/* A token of the last PROTOCOL_TOKEN_RING. */
uint32_t report_token_at(const struct report *report, uint32_t index);
/* Tokens so far. */
uint32_t report_count(const struct report *report);

/* The next logit; waits for the link now and then. */
void report_logit(struct report *report, int32_t logit);

/* The generation has ended. */
void report_done(struct report *report, const struct wire_done *done);
/* Send what waits, as far as the link has room. */
void report_poll(struct report *report);
/* The host has not been sent everything yet. */
bool report_pending(const struct report *report);
/* Answer a RESEND of this sequence number: its tokens, then DONE if it has been sent. Those before are acknowledged.
 * Returns STATUS_OK, or why not, with the numbers in error. */
enum status report_resend(struct report *report, uint32_t sequence, const struct wire_resend *resend,
			  struct wire_error *error);
/* Tokens sent again since reset. */
uint32_t report_resent(void);
