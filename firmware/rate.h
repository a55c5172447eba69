/* The serial line's rate: a new one is kept only once the host has shown that it works in both directions. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <generated/llama2_spec.h>

/* What BAUD asks for: checked, and done after everything that waits to be sent. Fills line, or error. */
enum status rate_request(const struct wire_baud *baud, struct wire_line *line, struct wire_error *error);
/* Switch when the time has come, or go back when the host was not heard in time. */
void rate_poll(void);
