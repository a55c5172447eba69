"""The timing checker sees every rule of LiteDRAM's table broken by one clock, and nothing wrong when it is kept."""
import subprocess

import pytest
from litedram.modules import MT41K128M16
from migen.fhdl import verilog

from soc.sim.dram import TimingChecker, create_phy
from soc.sim.simulator import Simulator
from tests.soc.compiled import compiled

CLK_FREQ = 100e6
PHASES   = 4
TCK_PS   = 2500
START    = 1003    # clocks before the first command; it is in the last phase of its cycle
# cs_n, ras_n, cas_n, we_n as numbers of three bits: JESD79-3F, table 6
COMMANDS = {"PRE": 2, "REF": 1, "ACT": 3, "RD": 5, "WR": 4, "ZQCS": 6}

BENCH = """
#include <cstdio>
#include "Vphy.h"
#include "verilated.h"
#define PHASE(n) do { phy.dfi_p##n##_cs_n = !(now && phase == n); phy.dfi_p##n##_ras_n = command >> 2 & 1; \\
	phy.dfi_p##n##_cas_n = command >> 1 & 1; phy.dfi_p##n##_we_n = command & 1; \\
	phy.dfi_p##n##_bank = bank; phy.dfi_p##n##_address = a10 << 10; phy.dfi_p##n##_cke = 1; } while (0)
int main(int argc, char **argv)
{
	Verilated::commandArgs(argc, argv);
	static Vphy phy;
	long clock = 0, at;
	int command, bank, a10;
	phy.sys_rst = 0;
	while (scanf("%ld %d %d %d", &at, &command, &bank, &a10) == 4)
		for (; clock <= at; clock += 4) {
			bool now = clock + 4 > at;
			int phase = at - clock;
			PHASE(0); PHASE(1); PHASE(2); PHASE(3);
			phy.sys_clk = 0; phy.eval();
			phy.sys_clk = 1; phy.eval();
		}
}
"""


class Platform:
    def __init__(self):
        self.sources = []

    def add_source(self, path):
        self.sources.append(path)


def make_phy():
    """The PHY model, its Verilog sources, and the timings it checks, in clocks."""
    platform = Platform()
    phy      = create_phy(platform, MT41K128M16(CLK_FREQ, "1:4", speedgrade="800"), CLK_FREQ)
    checker, = (module for _, module in phy._submodules if isinstance(module, TimingChecker))
    return phy, platform.sources, {name: -(-ps//TCK_PS) for name, ps in checker.timings.items()}


PHY, SOURCES, CLOCKS = make_phy()
PAIRS = {}
for previous, command, timing in TimingChecker.RULES:
    PAIRS[previous, command] = max(PAIRS.get((previous, command), 0), CLOCKS[timing])


@pytest.fixture(scope="module")
def violations(tmp_path_factory):
    """Runs (clock, command, bank, a10) rows through the PHY model and returns what it complains about."""
    directory = tmp_path_factory.mktemp("phy")
    ios = {getattr(getattr(PHY.dfi, f"p{n}"), name) for n in range(PHASES)
           for name in ("cs_n", "ras_n", "cas_n", "we_n", "bank", "address", "cke")}
    verilog.convert(PHY, ios, name="phy").write(str(directory/"phy.v"))
    program = compiled(directory, "phy", BENCH, ["phy.v", *SOURCES])

    def run(rows):
        text = "".join(f"{START + clock} {COMMANDS[command]} {bank} {a10}\n" for clock, command, bank, a10 in rows)
        log  = directory/"log"
        log.write_text(subprocess.run([program], input=text, check=True, text=True,
                                      capture_output=True).stdout)
        return dict(Simulator(directory, log=log).violations())
    return run


@pytest.mark.soc
@pytest.mark.parametrize("pair", PAIRS, ids="->".join)
def test_pair_of_commands(violations, pair):
    rule = f"{'->'.join(pair)} violation"
    for early, expected in ((1, 1), (0, 0)):
        found = violations([(0, pair[0], 3, 0), (PAIRS[pair] - early, pair[1], 3, 0)])
        # A refresh goes to all eight banks, so it may count more than once.
        assert bool(found.pop(rule, 0)) == bool(expected)
        assert not found


@pytest.mark.soc
def test_rule_holds_across_a_command_between(violations):
    gap = PAIRS["ACT", "PRE"]
    assert (violations([(0, "ACT", 1, 0), (PAIRS["ACT", "RD"], "RD", 1, 0), (gap - 1, "PRE", 1, 0)]) ==
            {"ACT->PRE violation": 1})


@pytest.mark.soc
def test_other_bank_is_free(violations):
    assert violations([(0, "PRE", 1, 0), (1, "ACT", 2, 0)]) == {}


@pytest.mark.soc
def test_precharge_of_all_banks(violations):
    assert violations([(0, "PRE", 1, 1), (1, "ACT", 2, 0)]) == {"PRE->ACT violation": 1}


@pytest.mark.soc
def test_activates_of_several_banks(violations):
    step = CLOCKS["tRRD"]
    assert violations([(0, "ACT", 0, 0), (step - 1, "ACT", 1, 0)]) == {"tRRD violation": 1}
    five = [(n*step, "ACT", n, 0) for n in range(4)]
    assert violations(five + [(CLOCKS["tFAW"] - 1, "ACT", 4, 0)]) == {"tFAW violation": 1}
    assert violations(five + [(max(CLOCKS["tFAW"], 4*step), "ACT", 4, 0)]) == {}


@pytest.mark.soc
@pytest.mark.parametrize("burst, expected", [(8, False), (11, True)])
def test_refreshes_may_be_postponed_eight_times(violations, burst, expected):
    rows = [(n*burst*CLOCKS["tREFI"] + m*PAIRS["REF", "REF"], "REF", 0, 0) for n in range(3) for m in range(burst)]
    assert bool(violations(rows).get("tREFI violation")) == expected
