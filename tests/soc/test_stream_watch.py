"""Each cycle of the stream gets the cause that it has; a beat is judged by the read that it came of."""
from types import SimpleNamespace

import pytest
from litedram.phy import dfi
from migen import *

from soc.sim.simulator import WATCH_CAUSES
from soc.sim.stream_watch import StreamWatch
from llama2_spec.registers import Phase

LATENCY = 5
# cs_n, ras_n, cas_n, we_n as numbers: JESD79-3F, table 6
READ, WRITE, PRECHARGE, ACTIVATE, REFRESH = 5, 4, 2, 3, 1
NAMES = list(WATCH_CAUSES)


def causes(script):
    """What each of the cycles of ``script`` is found to be, after the reads' latency, and the number of strays.

    A cycle is a set of: commands of the DFI, ``ask`` and ``ask both``, ``beat`` or ``embed`` (that one arrives), and of
    ``idle``, ``fenced``, ``attend``, ``done`` (the core's state).
    """
    core = SimpleNamespace(watch=Signal(7), irq=Signal(), embed__rdata_valid=Signal())
    for port in ("read0", "read1"):
        for name in ("cmd_valid", "cmd_ready", "rdata_valid"):
            setattr(core, f"{port}__{name}", Signal(name=f"{port}_{name}"))
    pins = dfi.Interface(14, 3, 1, 32, nphases=4)
    dut = StreamWatch(core, pins, LATENCY)
    found, strays = [], []

    def drive():
        for n, cycle in enumerate(script):
            command = next((word for word in cycle if isinstance(word, int)), None)
            phase = pins.phases[n % 4]
            for other in pins.phases:
                yield other.cs_n.eq(1)
            if command is not None:
                yield phase.cs_n.eq(0)
                yield phase.ras_n.eq(command >> 2)
                yield phase.cas_n.eq(command >> 1 & 1)
                yield phase.we_n.eq(command & 1)
                yield phase.address[10].eq(command == PRECHARGE)
            both = "ask both" in cycle
            for port, on in (("read0", both or "ask" in cycle), ("read1", both)):
                yield getattr(core, f"{port}__cmd_valid").eq(on)
                yield getattr(core, f"{port}__cmd_ready").eq(on)
            yield core.read1__rdata_valid.eq("beat" in cycle)
            yield core.embed__rdata_valid.eq("embed" in cycle)
            state = Phase.S2_ATTEND if "attend" in cycle else Phase.CLASSIFY if "done" in cycle else Phase.S5_DOWN
            yield core.watch.eq(state | ("idle" not in cycle) << 4 | ("fenced" in cycle) << 5 | ("done" not in cycle) <<
                                6)
            yield
            found.append(NAMES[(yield dut.cause)])
            strays.append((yield dut.stray))
    run_simulation(dut, drive())
    return found[1:], sum(strays)


def test_beats_and_what_came_instead():
    script = [{"ask both", READ}, {READ}, {READ}, {READ}, set(), {"beat"}, {"beat"}, {"embed"}, set(), {"idle"},
              {"attend", "fenced"},
              {"fenced"}, {"done"}, set(), set()]
    found, strays = causes(script)
    assert found[4:13] == ["beats", "beats", "embedding", "cpu", "idle", "attention", "vector", "turnaround", "compute"]
    assert strays == 0


@pytest.mark.parametrize("command, cause", [(PRECHARGE, "refresh"), (WRITE, "store"), (ACTIVATE, "row")])
def test_what_holds_up_a_beat_that_was_asked_for(command, cause):
    """From the command to the next read; a beat that nobody asked for is held up by nothing."""
    busy = [{command}, *[set()]*3, {READ}]
    found, strays = causes([{"ask"}, set(), *busy, *[set()]*(LATENCY - 1), {"beat"}, *busy, *[set()]*(LATENCY + 2)])
    arrived = found.index("beats")
    assert found[arrived - 4:arrived] == [cause]*4 and found[arrived - 5] == "row"
    assert set(found[arrived + 1:]) == {"compute", "cpu"} and strays == 0


def test_beat_without_a_read_is_noticed():
    assert causes([{"ask"}, {READ}, *[set()]*(LATENCY - 2), {"beat"}, set(), set()])[1] == 1
