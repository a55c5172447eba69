"""One seed's trial: a person with the shipped client, a board with the real firmware, and all that goes wrong."""
import io
import random
import traceback
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import serial

from llama2_host.connection import DeviceBackend
from llama2_host.device.device import Device
from llama2_host.device.link import DeviceError, RestartedError
from llama2_host.device.restart import explain_restart
from llama2_host.device.transport import TransportError
from llama2_host.errors import HostError
from llama2_host.progress import Progress
from tests.faults import clock
from tests.faults.cable import Cable, plan
from tests.faults.clock import CLOCK, Hang
from tests.faults.operations import Told, Wrong
from tests.faults.oracle import Oracle
from tests.faults.protocol_faults import URL
from tests.faults.slots import SlotOperations
from tests.faults.world import Firmware, World

WAYS = ("button", "button", "trap", "power")
RECONNECTS = 8          #: tries of a person; the line damages nothing from half of them on
SOON_S = 0.5            #: within which a planned reset or unplugging comes


@dataclass(frozen=True)
class Scenario:
    """What a trial does to the line and to the board."""
    rate: float = 1e-3          #: faults per byte, in each direction
    resets: float = 0.1         #: of operations during which the board is reset
    pulls: float = 0.1          #: of operations during which the cable is pulled
    operations: int = 12
    hurries: bool = True        #: the client goes to the fastest rate; otherwise it stays at the first one
    commands: int = 40          #: of the core in 50 us: how fast it generates
    columns: int = 2
    sets: int = 1               #: of candidates that the core keeps
    only: tuple[str, ...] = ()  #: these operations; all of them where it is empty
    loaded: bool = False        #: DRAM holds a model at first, and the line is whole while one is put there


@dataclass
class Result:
    """What a trial, or many, met."""
    trials: int = 0
    faults: Counter = field(default_factory=Counter)
    ended: Counter = field(default_factory=Counter)     #: operations by how they ended
    beside: Counter = field(default_factory=Counter)    #: generations of several slots by how they began and ended
    tokens: int = 0                                     #: compared
    bytes: int = 0                                      #: on the line
    longest_s: float = 0.0                              #: virtual, of an operation
    failures: list = field(default_factory=list)        #: (seed, operation, what)

    def __iadd__(self, other: "Result") -> "Result":
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            setattr(self, one.name, max(mine, theirs) if one.name == "longest_s" else mine + theirs)
        return self


@contextmanager
def virtual():
    """Virtual time for the client, and ``faults://`` for pyserial."""
    serial.protocol_handler_packages.append("tests.faults")
    try:
        with clock.virtual():
            yield
    finally:
        serial.protocol_handler_packages.remove("tests.faults")


class Trial(SlotOperations):
    """``run`` gives a :class:`Result`; the same seed and scenario give the same."""

    def __init__(self, firmware: Firmware, oracle: Oracle, images, seed: int, scenario: Scenario, say=lambda *_: None):
        self.firmware, self.oracle, self.images = firmware, oracle, images
        self.seed, self.scenario, self.say = seed, scenario, say
        self.rng = random.Random(f"{seed} {scenario}")
        self.result = Result(trials=1)
        self.image = None               # a path of images: what the device was given last
        self.texts: dict[int, list[int]] = {}   # by slot, ids whose rows it is known to hold
        self.notes = io.StringIO()
        self.notes.isatty = lambda: False       # type: ignore[method-assign]
        self.progress = Progress(self.notes)

    def run(self) -> Result:
        CLOCK.now = 1000.0
        CLOCK.world = self.world = World(self.firmware, Cable(plan(self.rng, self.scenario.rate)),
                                         columns=self.scenario.columns, sets=self.scenario.sets,
                                         commands=self.scenario.commands,
                                         memory=self._memory(), seed=self.seed)
        try:
            self.recover()
            for number in range(self.scenario.operations):
                name = self.rng.choice(self.scenario.only or self.NAMES)
                self._plan()
                self.attempt(f"{number} {name}", getattr(self, name))
                self._settle()
            self.world.cable.spared.add("the end")
            self.attempt("last", self.everything)
            if self.world.library.fake_flash_misuse():
                self.fail("last", "the flash was given a command that it ignores")
        finally:
            self.result.faults += self.world.cable.counts
            self.result.bytes += sum(self.world.cable.bytes)
            self.world.close()
            CLOCK.world = None
        return self.result

    def _memory(self) -> bytes:
        if not self.scenario.loaded:
            return b""
        self.image = "small"
        return bytes(self.images[self.image].data)

    def _plan(self) -> None:
        """A reset or a pulled cable some time from now."""
        at, draw = CLOCK.now + self.rng.random() ** 3 * SOON_S, self.rng.random()
        if draw < self.scenario.resets:
            self.world.plan = [(at, self.rng.choice(WAYS))]
        elif draw < self.scenario.resets + self.scenario.pulls:
            self.world.plan = [(at, "pull"), (at + self.rng.random() * 3, "plug")]

    def _settle(self) -> None:
        """What was planned and has not come does not come; a cable is put back."""
        self.world.plan = []
        self.world.plugged = True

    # One operation ----------------------------------------------------------------------------

    def attempt(self, name: str, operation) -> None:
        self.act()
        self.before = self._met()
        self.say(f"{CLOCK.now - 1000:9.3f} {name}")
        try:
            operation()
            self.result.ended["done"] += 1
            self._judge_notes(name)
        except Wrong as error:
            self.fail(name, f"wrong: {error}")
            self.recover()
        except Hang as error:
            self.fail(name, f"hung: {error}")
            self.recover()
        except HostError as error:
            self._judge(name, error)
            self.recover()
        except Told:
            self.recover()
        except Exception:
            self.fail(name, traceback.format_exc(limit=-4))
            self.recover()
        self.act()

    def act(self) -> None:
        """A part of an operation ends here, and what comes next may take as long as a whole one."""
        self.result.longest_s = max(self.result.longest_s, CLOCK.now - self.world.began)
        self.world.began = CLOCK.now

    def fail(self, name: str, what: str) -> None:
        self.say("FAILURE", name, what)
        self.result.failures.append((self.seed, name, what[-1500:]))

    def _met(self) -> tuple[int, int, int]:
        """Faults of the line so far, restarts, pulled cables."""
        return sum(self.world.cable.counts.values()), len(self.world.restarts), self.world.pulled

    def _judge(self, name: str, error: HostError) -> None:
        """An error is one line, and true."""
        self.say(f"{CLOCK.now - 1000:9.3f}   {type(error).__name__}: {error}")
        faults, restarts, pulled = self._met()
        restarted = restarts > self.connected[1]
        unplugged = pulled > self.connected[2] or not self.world.plugged
        true = (restarted if isinstance(error, (RestartedError, DeviceError)) else
                unplugged if isinstance(error, TransportError) else
                faults > self.before[0] or restarted or unplugged or CLOCK.now < self.world.cable.out_until)
        if "\n" in str(error) or not str(error).strip():
            self.fail(name, f"not one line: {error!r}")
        elif not true:
            self.fail(name, f"not true: {type(error).__name__}: {error}")
        kind = type(error).__name__
        self.result.ended[f"{kind}, after a restart" if restarted else kind] += 1
        self._judge_notes(name)

    def _judge_notes(self, name: str) -> None:
        """Of the restarts that the client told, each happened."""
        told = [line for line in self.notes.getvalue().splitlines() if "the board restarted" in line]
        self.notes.seek(0)
        self.notes.truncate()
        happened = [explain_restart(word) for word in self.world.restarts]
        for line in told:
            if not any(text and text in line for text in happened):
                self.fail(name, f"told of a restart that was none: {line}")
        self.result.ended["restarts told"] += len(told)

    # The connection ---------------------------------------------------------------------------

    def connect(self) -> Device:
        """As a person does: open, and hurry."""
        self.connected = self._met()
        device = Device.open(URL, wait_s=5.0, progress=self.progress)
        if self.scenario.hurries:
            device.hurry(progress=self.progress)
        return device

    def recover(self) -> None:
        """Connect again, several times if that is what it takes."""
        for attempt in range(RECONNECTS):
            self.act()
            if attempt == 1:
                self._settle()
            if attempt == RECONNECTS // 2:
                self.world.cable.spared.add("connecting")
                self.world.cable.out_until = 0.0
            try:
                self.device = self.connect()
                self.texts = {}
                self.world.cable.spared.discard("connecting")
                return
            except HostError as error:
                self.say(f"{CLOCK.now - 1000:9.3f}   connecting: {error}")
                last = str(error)
        self.fail("connect", f"no way back: {last}")
        raise RuntimeError("no way back")

    def backend(self) -> DeviceBackend:
        return DeviceBackend(self.device, self.images[self.image])
