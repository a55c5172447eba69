"""One seed's session: the shipped client and firmware on the simulated SoC, each result compared with golden's."""
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.session import BOOT_S
from llama2_host.device.device import Device
from llama2_host.device.link import LinkError
from llama2_host.errors import HostError
from llama2_spec.protocol import MAX_SLOTS
from llama2_spec.registers import REGISTERS
from soc.sim.simulator import Simulator
from tests.shapes import told
from tests.soak import models, requests
from tests.soak.generation import Wrong
from tests.soak.oracle import Slot
from tests.soak.rounds import Rounds

ERRORS = {flag.name: 1 << bit for bit, flag in
          enumerate(next(register for register in REGISTERS if register.name == "errors").fields)}


SHORTEST = 8        #: positions of a slot; every model's context has more


@dataclass
class Result:
    """What a session did; ``failure`` is the first thing that was wrong."""
    counts: Counter = field(default_factory=Counter)
    failure: str = ""


class Session(Rounds):
    """On the simulator ``vsim``, as ``rng`` has it. ``folder`` is for the DRAM's content and the simulator's log."""

    def __init__(self, vsim, rng, folder, say=lambda *words: None):
        self.vsim, self.rng, self.folder, self.say = vsim, rng, folder, say
        self.result = Result()
        self.counts = self.result.counts
        self.slots: list[Slot] = []
        self.allowed = 0            # error flags that some golden raised

    def run(self, rounds: int) -> Result:
        """The whole session. A difference, an error that nobody caused and a DRAM violation end it with ``failure``."""
        try:
            self._run(rounds)
        except (Wrong, HostError) as error:
            self.result.failure = f"{type(error).__name__}: {error}"
        return self.result

    def _run(self, rounds: int) -> None:
        self._choose_model()
        uploads = self.rng.random() < .15
        count, length = self._division()
        self._empty(count, length)
        if not uploads and self.rng.random() < .4:
            self._preload()
        dram = self.folder / "dram"
        dram.write_bytes(models.dram_content(self.image, self.slots))
        with Simulator(self.vsim, None if uploads else dram, log=self.folder / "log") as simulator:
            self.simulator = simulator
            self._connect()
            with self.ending():
                if uploads:
                    self._upload()
                self._holds_the_model()
                self._divide(count, length)
                for _ in range(rounds):
                    self.rng.choice(self.ROUNDS)(self)
                self._whole()
            self._judge_dram()

    @contextmanager
    def ending(self):
        """The connection, whichever it is by then, is closed behind this."""
        try:
            yield
        finally:
            self.device.close()

    # The model and its slots ------------------------------------------------------------------

    def _choose_model(self) -> None:
        self.model, formats = models.session_model(self.rng)
        self.image, self.config = self.model.image, self.model.config
        self.counts[f"format {formats}"] += 1
        self.counts[f"kv {self.config.kv.name.lower()}"] += 1
        self.say(f"model: {told(self.config)}, {formats}, {len(self.image.data)} bytes")

    def _division(self) -> tuple[int, int]:
        """How many slots, and how long."""
        length = self.config.seq_len
        if self.rng.random() < .4:
            length = self.rng.randint(SHORTEST, length)
        return self.rng.choice((1, 1, 2, 2, 3, 4, MAX_SLOTS)), length

    def _empty(self, count: int, length: int) -> None:
        self.slots = [Slot(self.image, length) for _ in range(count)]

    def _preload(self) -> None:
        """Rows in memory that the device is not told of, but by the flag of a generation behind them."""
        for slot in self.slots:
            count = requests.length(self.rng, slot.length - 1)
            ids = [self.rng.randrange(self.config.vocab_size) for _ in range(count)]
            slot.prefix(ids)
            self.counts["rows preloaded"] += len(ids)

    def _divide(self, count: int, length: int) -> None:
        """Slots are as they were if nothing changes; a device that has just got its model has one."""
        slotted = self.device.divide(count, length)
        if (slotted.count, slotted.length) != (count, length):
            raise Wrong(f"SLOTS({count}, {length}) is answered with {slotted}")
        self.say(f"{count} slots of {length}")

    def _upload(self) -> None:
        """The model goes over the line; the cache is one slot then, and empty."""
        self.device.load(self.model.data)
        self.device.require_model()
        self.counts["uploads"] += 1
        self.say("uploaded")

    # The device -------------------------------------------------------------------------------

    def _connect(self) -> None:
        """However long the device takes to boot."""
        deadline = time.monotonic() + BOOT_S
        while True:
            try:
                self.device = Device.open(self.simulator.url, wait_s=60)
                return
            except LinkError:
                if time.monotonic() > deadline:
                    raise

    def _holds_the_model(self) -> None:
        if not self.device.holds(header_crc=self.model.header_crc, payload_crc=self.model.payload_crc):
            raise Wrong(f"the device holds another model: {self.device.info}")

    def _whole(self) -> None:
        """Rows once more; nothing has written over the model; no slot is lost."""
        self.rows()
        if self.device.verify().crc != self.model.payload_crc:
            raise Wrong("the model in memory is not what it was")

    def _judge_dram(self) -> None:
        violations = self.simulator.violations()
        self.counts["violations"] += sum(violations.values())
        if violations:
            raise Wrong(f"DRAM: {dict(violations)}")

    def _allow(self) -> None:
        for slot in self.slots:
            for name in slot.golden.flags.raised:
                self.allowed |= ERRORS[name]
