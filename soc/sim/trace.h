// Writes a waveform of the model between two moments, each a time or a result of the core; only in a build that traces.
#pragma once
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "Vsim.h"
#include "verilated.h"
#include "verilated_fst_c.h"

class Trace
{
      public:
	// Reads the plusargs; records nothing without +trace=FILE. Call it before the model's first eval.
	explicit Trace(Vsim *model) : model(model), file(text("trace="))
	{
		from_ps = number("trace_from_ps=", 0);
		to_ps = number("trace_to_ps=", UINT64_MAX);
		from_result = number("trace_from_result=", 0);
		to_result = number("trace_to_result=", UINT64_MAX);
		if (file.empty())
			return;
		Verilated::traceEverOn(true);
		fst = std::make_unique<VerilatedFstC>();
		model->trace(fst.get(), 99);
	}

	~Trace() { close(); }

	// Call it after every eval. sim_trace is high while the core holds a result.
	void sample(uint64_t now_ps)
	{
		if (!fst)
			return;
		results += model->sim_trace && !held;
		held = model->sim_trace;
		if (now_ps > to_ps)
			close();
		if (!fst || now_ps < from_ps || results < from_result)
			return;
		if (!fst->isOpen()) {
			fst->open(file.c_str());
			first_ps = now_ps;
		}
		fst->dump(now_ps);
		last_ps = now_ps;
		if (results >= to_result)
			close();
	}

	void close()
	{
		if (!fst)
			return;
		if (fst->isOpen()) {
			fst->close();
			printf("[trace] from %" PRIu64 " to %" PRIu64 " ps\n", first_ps, last_ps);
		} else {
			printf("[trace] nothing\n");
		}
		fst.reset();
	}

      private:
	static std::string text(const char *prefix)
	{
		// The argument comes whole or empty; its plus sign and the prefix are cut off.
		const char *match = Verilated::commandArgsPlusMatch(prefix);
		return *match ? match + 1 + std::string(prefix).size() : "";
	}

	static uint64_t number(const char *prefix, uint64_t otherwise)
	{
		std::string digits = text(prefix);
		return digits.empty() ? otherwise : strtoull(digits.c_str(), nullptr, 10);
	}

	Vsim *model;
	std::string file;
	std::unique_ptr<VerilatedFstC> fst;
	uint64_t from_ps, to_ps, from_result, to_result;
	uint64_t results = 0, first_ps = 0, last_ps = 0;
	bool held = false;
};
