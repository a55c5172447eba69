// The functions that LiteX's simulation core calls for a Verilated model. Prints the simulated time on SIGUSR1 and
// ends in good order on SIGTERM.
#include <cinttypes>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <memory>

#include "Vsim.h"
#include "verilated.h"
#if VM_TRACE_FST
#include "trace.h"

static std::unique_ptr<Trace> trace;
#endif

static uint64_t now_ps;
static volatile sig_atomic_t asked, ended;

extern "C" {
void litex_sim_eval(void *model, uint64_t time_ps)
{
	now_ps = time_ps;
	static_cast<Vsim *>(model)->eval();
#if VM_TRACE_FST
	trace->sample(now_ps);
#endif
}

void litex_sim_init_cmdargs(int argc, char *argv[])
{
	setvbuf(stdout, nullptr, _IOLBF, 0);    // the log must hold every line when the process is terminated
	signal(SIGUSR1, [](int) { asked = 1; });
	signal(SIGTERM, [](int) { ended = 1; });    // a trace and a profile are complete when main returns
	Verilated::commandArgs(argc, argv);
}

// Called after every half cycle.
int litex_sim_got_finish()
{
	if (asked) {
		asked = 0;
		printf("simulated %" PRIu64 " ps\n", now_ps);
	}
	return ended || Verilated::gotFinish();
}

// Called when the model has been made.
void litex_sim_init_tracer(void *model, long, long)
{
#if VM_TRACE_FST
	trace = std::make_unique<Trace>(static_cast<Vsim *>(model));
#else
	(void)model;
#endif
}
}

double sc_time_stamp() { return now_ps; }
