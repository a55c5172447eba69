/* Prompt lookup: what followed the last tokens when they occurred before, as a guess of what follows now.
 * Ref: Saxena 2023, Prompt Lookup Decoding. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <generated/llama2_spec.h>

#define LOOKUP_HEADS 256u

/* The latest tokens of a slot. */
struct lookup {
	uint32_t first;  /* position of the first token that was added */
	uint32_t end;    /* position after the last one */
	uint32_t tokens[PROTOCOL_LOOKUP_HISTORY]; /* by position, modulo its length; the same for back */
	uint16_t back[PROTOCOL_LOOKUP_HISTORY];   /* positions back to the one before with the same head; 0: none */
	uint32_t heads[LOOKUP_HEADS]; /* 1 + the newest position of a token that hashes to it; 0: none */
};

/* Forget every token. */
void lookup_forget(struct lookup *lookup);
/* Forget the tokens from position on; all of them, if those before are not known either. */
void lookup_rewind(struct lookup *lookup, uint32_t position);
/* The token at the position after the last one. */
void lookup_add(struct lookup *lookup, uint32_t token);
/* Guess up to limit tokens after the last one; returns how many. In no more than LOOKUP_STEPS comparisons of a suffix.
 */
uint32_t lookup_guess(const struct lookup *lookup, uint32_t *tokens, uint32_t limit);
