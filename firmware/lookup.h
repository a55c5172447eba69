/* Prompt lookup: what followed the last tokens when they occurred before, as a guess of what follows now.
 * Ref: Saxena 2023, Prompt Lookup Decoding. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Forget every token. */
void lookup_forget(void);
/* Forget the tokens from position on; all of them, if those before are not known either. */
void lookup_rewind(uint32_t position);
/* The token at the position after the last one. */
void lookup_add(uint32_t token);
/* Guess up to limit tokens after the last one; returns how many. In no more than LOOKUP_STEPS comparisons of a suffix.
 */
uint32_t lookup_guess(uint32_t *tokens, uint32_t limit);
