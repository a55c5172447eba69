/* Generations: requests are checked and begun, each in a slot; the K/V cache is kept for the next ones. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "slot.h"

/* A model was installed, or its cache divided anew, or it was dropped (vocab 0): the slots are empty. columns are the
 * core's, and so are its sets of candidates. */
void generate_install(const struct slot_division *division, uint32_t vocab, uint32_t columns, uint32_t sets);
/* The request with this sequence number was begun already. */
bool generate_is(uint32_t sequence);
/* Check a request and begin, unless the request with this sequence number was begun already; first is the position of
 * the first token that it generates. On refusal error says why. */
enum status generate_begin(uint32_t sequence, const struct wire_generate *request, uint32_t id_count,
			   uint32_t *first, struct wire_error *error);
/* Answer a RESEND; on refusal error says why. */
enum status generate_resend(uint32_t sequence, const struct wire_resend *what, struct wire_error *error);
/* Do what can be done now; never waits. */
void generate_poll(void);
/* The core works on one, or the host has not been sent all of it. */
bool generate_running(void);
/* End the one with this sequence number with an ABORT, if it runs; 0: all. */
void generate_abort(uint32_t generation);
/* End all without a word, and forget their sequence numbers: a new session begins. */
void generate_forget(void);

/* Totals since generate_clear; errors since passes_errors_clear. */
void generate_stats(struct wire_stats *stats);
void generate_clear(void);
