// What LiteX's simulation core asks of a Verilated model, without its tracing; tells the simulated time on SIGUSR1.
#include <cinttypes>
#include <csignal>
#include <cstdint>
#include <cstdio>

#include "Vsim.h"
#include "verilated.h"

static uint64_t now_ps;
static volatile sig_atomic_t asked;

extern "C" {
void litex_sim_eval(void *model, uint64_t time_ps)
{
	now_ps = time_ps;
	static_cast<Vsim *>(model)->eval();
}

void litex_sim_init_cmdargs(int argc, char *argv[])
{
	setvbuf(stdout, nullptr, _IOLBF, 0);    // the log must hold every line when the process is terminated
	signal(SIGUSR1, [](int) { asked = 1; });
	Verilated::commandArgs(argc, argv);
}

// Called after every half cycle.
int litex_sim_got_finish()
{
	if (asked) {
		asked = 0;
		printf("simulated %" PRIu64 " ps\n", now_ps);
	}
	return Verilated::gotFinish();
}

void litex_sim_init_tracer(void *, long, long) {}
}

double sc_time_stamp() { return now_ps; }
