"""Several generations at once on the firmware of this PC: begun, collected and acknowledged by sequence number."""
from llama2_spec.protocol import (SLOT_SHIFT, TOKEN_RING, Abort, Accepted, Done, Generate, Opcode, Resend, Slots,
                                  Status, Tokens)
from tests.firmware import library


class Many:
    """``device`` is a :class:`tests.firmware.library.Device`; ``tokens`` and ``done`` are by sequence number."""

    def __init__(self, device: library.Device, count: int, length: int = 0):
        self.device = device
        self.division = device.ask(Opcode.SLOTS, Slots(count, length))
        self.tokens: dict[int, list[int]] = {}
        self.done: dict[int, Done] = {}
        self.heard: list[int] = []              #: sequence numbers of the tokens, in the order in which they came
        self._acknowledged: dict[int, int] = {}

    def begin(self, slot: int, **request) -> int:
        """Its sequence number."""
        sequence = self.device.send(Opcode.GENERATE, Generate(**request | {"flags": request.get("flags", 0)
                                                                           | slot << SLOT_SHIFT}))
        self.tokens[sequence], self._acknowledged[sequence] = [], 0
        return sequence

    def abort(self, sequence: int) -> None:
        self.device.send(Opcode.ABORT, Abort(sequence))

    def poll(self, count: int = 1, execute: int = 8) -> None:
        """Let the device work, and take what it says."""
        for _ in range(count):
            self.device.poll(1, execute)
            for frame in self.device.frames():
                assert frame.status == Status.OK, library.error(frame)
                self._take(frame)

    def _take(self, frame) -> None:
        if frame.opcode == Opcode.GENERATE:
            Accepted.unpack(frame.payload)
        elif frame.opcode == Opcode.TOKENS:
            event, known = Tokens.unpack(frame.payload), self.tokens[frame.sequence]
            assert event.index == len(known)
            known += event.entries[::2]
            self.heard += [frame.sequence] * (len(event.entries) // 2)
            if event.running and len(known) - self._acknowledged[frame.sequence] >= TOKEN_RING // 4:
                self._acknowledged[frame.sequence] = len(known)
                self.device.send(Opcode.RESEND, Resend(len(known), frame.sequence, 1))
        elif frame.opcode == Opcode.DONE:
            self.done.setdefault(frame.sequence, Done.unpack(frame.payload))

    def finish(self, polls: int = 20000) -> None:
        """Until every generation has ended."""
        for _ in range(polls):
            if self.done.keys() == self.tokens.keys():
                return
            self.poll()
        raise AssertionError(f"generations {self.tokens.keys() - self.done.keys()} did not end")
