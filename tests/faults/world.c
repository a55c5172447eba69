/* The firmware, its core and the line in virtual time: a library that tests/faults/world.py drives. */
#include <string.h>

#include "board.h"
#include "device.h"
#include "fake.h"
#include "restart.h"

#define QUIET 64u /* steps in which nothing happens, before steps become longer */
#define LONGEST 100u /* times the first */
#define BATCH 4u /* steps that go on after something was sent */

struct world {
	uint32_t step_cycles;     /* least that passes at once */
	uint32_t step_bytes;      /* that the line carries meanwhile, in each direction */
	uint32_t commands;        /* that the core executes meanwhile */
	uint32_t fifo_bytes;      /* of the receiver */
	const uint8_t *in;        /* from the host */
	uint32_t in_bytes, taken; /* what does not fit the receiver is taken, too, and lost */
	uint8_t *out;             /* to the host */
	uint32_t room, sent;
	uint32_t lost;
};

static struct world *world;

/* One step of the line. */
static void carry(uint32_t times)
{
	uint32_t bytes = world->step_bytes * times;
	uint32_t space = world->room - world->sent;

	for (uint32_t n = 0; n < bytes && world->taken < world->in_bytes; n++, world->taken++) {
		if (fake_waiting() < world->fifo_bytes)
			fake_feed(world->in + world->taken, 1);
		else
			world->lost++;
	}
	world->sent += fake_drain(world->out + world->sent, bytes < space ? bytes : space);
	fake_wait(world->step_cycles * times);
}

/* The firmware waits in a loop for room on the line. */
static void pass(void)
{
	if (world != NULL)
		carry(1);
}

/* Call before install_init. */
void world_begin(void)
{
	fake_when_full(pass);
	fake_attend();
}

/* Let time pass, at most limit cycles, until something was sent; returns how much did. */
uint64_t world_run(struct world *w, uint64_t limit)
{
	uint64_t passed = 0;
	uint32_t quiet = 0, batch = 0;

	world = w;
	while (passed < limit && w->sent < w->room / 2) {
		uint32_t before = w->taken + w->sent + fake_log_count(), cycles = llama2_cycles();
		uint32_t times = quiet < QUIET ? 1 : LONGEST;

		device_poll();
		restart_poll();
		fake_execute(w->commands);
		carry(passed + (uint64_t)w->step_cycles * times <= limit ? times : 1);
		passed += (uint32_t)(llama2_cycles() - cycles);
		quiet = w->taken + w->sent + fake_log_count() == before && !llama2_busy() ? quiet + 1 : 0;
		if (w->sent != 0 && ++batch > BATCH)
			break;
	}
	world = NULL;
	return passed;
}
