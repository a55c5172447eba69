/* Passes over the weights: planned for all slots that run, pushed ahead of execution, and their results handed out. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "slot.h"

/* Begin anew, with a core that is idle. own_scales: each of its columns has a LOGIT_SCALE of its own. */
void passes_install(uint32_t columns, bool own_scales);
/* A generation begins: the number that it waits with. */
uint32_t passes_begin(void);
/* Do what can be done now; never waits. */
void passes_poll(void);
/* End a slot's generation now. What is under way of it is dropped; where others have passes under way, too, it runs to
 * its end unseen. */
void passes_stop(struct slot *slot, enum reason reason);
/* Passes are under way, if only those whose results nobody wants any more. */
bool passes_under_way(void);
/* Add the core's sticky errors to every generation that runs, and return all since errors_clear. */
uint32_t passes_errors(void);
void passes_errors_clear(void);
