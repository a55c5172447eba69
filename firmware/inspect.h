/* Requests by which a host inspects a board, each answered: they touch DRAM and the core, but no model that is in use.
 */
#pragma once

#include <generated/llama2_spec.h>

void inspect_board(void);
void inspect_lane(const struct wire_lane *what);
void inspect_memory(const struct wire_memory *what);
void inspect_stream(const struct wire_stream *what);
