// The core alone with a DRAM, as a library for tests/accel/verilated.py. The DRAM serves as tests/accel/decoder.py's
// does: beats come in order, some cycles later; commands and data are refused at random.
#include "Vcore.h"
#include "ports.h"
#include "verilated.h"

#include <cstring>
#include <deque>
#include <memory>
#include <vector>

namespace
{

constexpr unsigned READ_PORTS = 3;    // read0, read1, embed
constexpr uint32_t NONE = UINT32_MAX; // no beat is due
constexpr uint32_t POISON = 0xdead;   // what a beat holds that nobody wrote

struct Beat {
	uint32_t words[4];
};

struct Settings {
	uint32_t beats, latency, seed;
	uint32_t stall, write_stall; // chances of a refusal, of 65536
};

struct Bench {
	explicit Bench(const Settings &with)
	    : settings(with), beats(with.beats, Beat{{POISON, 0, 0, 0}}), random(with.seed | 1),
	      top(new Vcore(&context))
	{
		for (auto &line : lines)
			line.assign(settings.latency, NONE);
		top->eval();
		serve();
		top->eval();
	}

	// Ref: Marsaglia 2003, Xorshift RNGs
	bool happens(uint32_t chance)
	{
		random ^= random << 13;
		random ^= random >> 17;
		random ^= random << 5;
		return random >> 16 < chance;
	}

	Beat &at(uint32_t address)
	{
		fault |= address >= beats.size();
		return beats[address % beats.size()];
	}

	// What DRAM offers in the cycle that begins.
	void serve()
	{
		const Beat *due[READ_PORTS] = {};
		const unsigned order[READ_PORTS] = {1 - bus, bus, 2};
		bool taken = false;

		for (unsigned port : order) {
			ready[port] = !happens(settings.stall);
			// The two of the stream share the bus.
			if (taken && port < 2)
				continue;
			while (lines[port].size() > settings.latency && lines[port].front() == NONE)
				lines[port].pop_front();
			if (lines[port].front() != NONE) {
				due[port] = &at(lines[port].front());
				if (port < 2) {
					taken = true;
					bus = port;
				}
			}
			lines[port].pop_front();
		}
		core_offer(*top, ready, due);
		write_ready = !happens(settings.write_stall);
		data_ready = !pending.empty() && !happens(settings.write_stall);
		core_take(*top, write_ready, data_ready);
	}

	// What the core asks for in the cycle that ends.
	void listen()
	{
		for (unsigned port = 0; port < READ_PORTS; port++)
			lines[port].push_back(core_asks(*top, port) && ready[port] ? core_address(*top, port) : NONE);
		if (data_ready) {
			fault |= !core_has_data(*top);
			core_data(*top, at(pending.front()).words);
			written.push_back(pending.front());
			pending.pop_front();
		}
		if (core_writes(*top) && write_ready)
			pending.push_back(core_write_address(*top));
	}

	void tick()
	{
		listen();
		top->clk = 1;
		top->eval();
		top->clk = 0;
		serve();
		top->eval();
	}

	Settings settings;
	std::vector<Beat> beats;
	uint32_t random;
	VerilatedContext context;
	std::unique_ptr<Vcore> top;
	std::deque<uint32_t> lines[READ_PORTS], pending;
	std::vector<uint32_t> written;
	unsigned bus = 0;
	bool ready[READ_PORTS] = {}, write_ready = false, data_ready = false;
	bool fault = false; // an address beyond the DRAM, or write data that was not there when it was fetched
};

} // namespace

extern "C" {

Bench *bench_new(const Settings *settings)
{
	return new Bench(*settings);
}

void bench_delete(Bench *bench)
{
	delete bench;
}

void *bench_beats(Bench *bench)
{
	return bench->beats.data();
}

uint32_t bench_written(Bench *bench)
{
	return bench->written.size();
}

uint32_t bench_fault(Bench *bench)
{
	return bench->fault;
}

uint32_t bench_get(Bench *bench, uint32_t port)
{
	return core_get(*bench->top, port);
}

void bench_set(Bench *bench, uint32_t port, uint32_t value)
{
	core_set(*bench->top, port, value);
	bench->top->eval();
}

// At most so many cycles, to the one in which the port until is high (low, if inverted); the cycles, and what the
// sampled port was in the last.
uint32_t bench_tick(Bench *bench, uint32_t most, uint32_t until, uint32_t inverted, uint32_t sampled, uint32_t *value)
{
	uint32_t cycles = 0;
	bool done = false;

	while (!done && cycles != most) {
		done = until != NONE && (core_get(*bench->top, until) == 0) == (inverted != 0);
		*value = sampled != NONE ? core_get(*bench->top, sampled) : 0;
		bench->tick();
		cycles++;
	}
	return done || until == NONE ? cycles : NONE;
}
}
