/* The model in DRAM: found there after a reset, brought from the flash, uploaded or checked, and made ready for
 * generations. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <generated/llama2_spec.h>

/* Look for a model that is in DRAM already. */
void install_init(void);
/* Do what can be done now; never waits. */
void install_poll(void);

enum model_state install_state(void);
/* Why it is refused, in that state. */
enum status install_refused(void);
const struct wire_error *install_error(void);
/* The core checks a model that is in use: no generation may begin. */
bool install_checking(void);
/* The model's slots begin anew, empty, as its image's division has them. */
void install_slots(void);

/* Requests, each answered. */
void install_load_begin(const struct wire_load_begin *begin);
void install_load(const struct wire_load *piece, uint32_t bytes);
void install_load_end(void);
void install_verify(const struct wire_verify *what);
