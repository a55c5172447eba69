/* A generation: prompt, then tokens, fed to the core ahead of execution; the KV cache is kept for the next one. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <generated/llama2_spec.h>

/* A model was installed, or dropped (all 0): the cache is empty. columns are the core's; the tokens of all positions go
 * to history. */
void generate_install(uint32_t vocab_size, uint32_t seq_len, uint32_t columns, uint32_t *history);
/* Check a request and begin; on refusal error says why. */
enum status generate_begin(uint32_t sequence, const struct wire_generate *request, uint32_t id_count,
			   struct wire_error *error);
/* The request with this sequence number was begun already. */
bool generate_is(uint32_t sequence);
/* Position of the first token that it generates. */
uint32_t generate_first(void);
/* Do what can be done now; never waits. */
void generate_poll(void);
/* One is running, or the host has not been sent all of it. */
bool generate_running(void);
/* End with an ABORT, if one is running. */
void generate_abort(void);
/* End without a word, and forget its sequence number: a new session begins. */
void generate_forget(void);

/* Positions valid in the cache. */
uint32_t generate_kv_positions(void);
/* Totals since generate_clear; errors since generate_clear_errors. */
void generate_stats(struct wire_stats *stats);
void generate_clear(void);
void generate_clear_errors(void);
