/* Traps, silence and accesses to nowhere end in a reset, whose cause the next start of the firmware finds here. */
#include "restart.h"

#include "board.h"
#include "llama2.h"

#define CAUSE PROTOCOL_RESTART_PLACE_BITS
#define PLACE ((1u << CAUSE) - 1)
#define MARK 0x7265736bu /* what memory holds after power-up is no word with its mark */
#define LOOK 256u        /* polls between two looks at the core: more than it needs for a beat */

/* Survives a reset, which crt0 answers with zeros in .bss. Volatile, or the compiler leaves out what is written before
 * the reset, since nothing reads it there. */
static volatile uint32_t kept[2] __attribute__((section(".noinit")));

static uint32_t why;

static void keep(uint32_t word)
{
	kept[0] = word;
	kept[1] = word ^ MARK;
}

void restart_begin(void)
{
	uint32_t events = board_events();

	why = (kept[0] ^ kept[1]) == MARK ? kept[0] : (uint32_t)RESTART_POWER << CAUSE;
	/* Time was up and nobody recorded where: interrupts were off. */
	if ((events & BOARD_EVENT_TIME) && why >> CAUSE <= RESTART_OUTSIDE)
		why = (uint32_t)RESTART_WATCHDOG << CAUSE;
	keep((uint32_t)RESTART_OUTSIDE << CAUSE);
}

uint32_t restart_why(void)
{
	return why;
}

void restart(uint32_t cause, uint32_t pc)
{
	keep(cause << CAUSE | (pc & PLACE));
	board_reset();
}

void restart_poll(void)
{
	static uint32_t polls;

	if (++polls % LOOK != 0)
		return;
	if (board_events() & BOARD_EVENT_BUS)
		restart(RESTART_BUS, 0);
	if (!llama2_stands())
		board_alive();
}
