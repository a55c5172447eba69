"""A scripted device behind a loopback socket: speaks spec/llama2_spec/protocol.py, counts what happens, and damages
frames on request."""
import socket
import threading
import zlib
from collections.abc import Callable

from llama2_spec import protocol
from llama2_spec.frame import Frame, FrameError
from llama2_spec.protocol import ModelState, Opcode, Reason, Status, StoreState

Fault = Callable[[int, Frame, bytes], bytes]    #: number of the frame, the frame, its bytes -> what goes on the wire


def clean(number: int, frame: Frame, encoded: bytes) -> bytes:
    return encoded


class FakeDevice:
    """Answers one client at a time. Tokens of a generation are ``script(position)``; cycles are 1000 apart."""

    def __init__(self, *, script=lambda position: 10 + position, fault_in: Fault = clean, fault_out: Fault = clean,
                 memory: bytes = b"", seq_len: int = 64, **info):
        self.script, self.fault_in, self.fault_out = script, fault_in, fault_out
        self.memory = bytearray(memory)
        self.info = {"version": protocol.VERSION, "clock_hz": 100_000_000, "dram_bytes": 1 << 20, "dram_status": 1,
                     "max_dim": 1024, "max_hidden_dim": 4096, "max_head_dim": 128, "max_kv_dim": 1024, "max_heads": 32,
                     "max_layers": 64, "max_vocab_size": 65536, "max_seq_len": 4096, "model_state": ModelState.READY,
                     "seq_len": seq_len, "firmware": "fake", "name": "fake"} | info
        self.requests: list[Frame] = []         # as received, repetitions included
        self.effects: list[Opcode] = []         # executed
        self.received = 0
        self.total = 0
        self.crc: int | None = None
        self.tokens: list[int] = []
        self.running = False
        self.flash_bytes = self.flash_room = 0
        self.stored: bytes | None = None
        self.cut_after: int | None = None       # close the connection after so many frames sent
        self.max_slots = 1
        self.hold = False                       # GENERATE yields nothing until ABORT
        self.done: protocol.Done | None = None
        self._answered: tuple[int, int, bytes] | None = None
        self._sent = self._arrived = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"socket://127.0.0.1:{self._server.getsockname()[1]}"
        self._closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._closed = True
        self._server.close()

    # Wire -------------------------------------------------------------------------------------

    def _serve(self):
        while not self._closed:
            try:
                self._client, _ = self._server.accept()
            except OSError:
                return
            buffer = b""
            try:
                while data := self._client.recv(4096):
                    *frames, buffer = (buffer + data).split(b"\0")
                    for encoded in filter(None, frames):
                        self._arrive(encoded)
            except OSError:
                pass
            self._client.close()

    def _arrive(self, encoded: bytes):
        self._arrived += 1
        try:
            frame = Frame.decode(encoded)
            damaged = self.fault_in(self._arrived, frame, encoded)
            if not damaged:
                return
            frame = Frame.decode(damaged)
        except FrameError:
            return
        self.requests.append(frame)
        key = (frame.opcode, frame.sequence)
        if self._answered is not None and self._answered[:2] == key:
            self._send(self._answered[2])       # a repetition: the same answer, no second effect
            return
        self.effects.append(Opcode(frame.opcode))
        status, payload = getattr(self, f"on_{Opcode(frame.opcode).name.lower()}")(frame)
        reply = Frame(frame.opcode, frame.sequence, payload.pack() if hasattr(payload, "pack") else payload, status)
        self._answered = (*key, reply)
        self._send(reply)
        self.after(frame)

    def _send(self, frame: Frame):
        self._sent += 1
        self._client.sendall(self.fault_out(self._sent, frame, frame.encode()))
        if self.cut_after is not None and self._sent >= self.cut_after:
            self.cut_after = None
            self._client.shutdown(socket.SHUT_RDWR)

    # Requests ---------------------------------------------------------------------------------

    def on_hello(self, frame):
        self.running = False
        return Status.OK, protocol.Device(**self.info)

    def on_load_begin(self, frame):
        begin = protocol.LoadBegin.unpack(frame.payload)
        if (begin.total, begin.crc) != (self.total, self.crc):
            self.received, self.total, self.crc = 0, begin.total, begin.crc
            self.memory = bytearray(begin.total)
        return Status.OK, protocol.Loaded(self.received)

    def on_load(self, frame):
        load = protocol.Load.unpack(frame.payload)
        if load.offset != self.received:
            return Status.OUT_OF_ORDER, protocol.Error(0, load.offset, self.received)
        self.memory[load.offset:load.offset + len(load.data)] = load.data
        self.received += len(load.data)
        return Status.OK, protocol.Loaded(self.received)

    def on_load_end(self, frame):
        if self.received != self.total:
            return Status.INCOMPLETE, protocol.Error(0, self.received, self.total)
        crc = zlib.crc32(self.memory)
        if crc != self.crc:
            return Status.BAD_PAYLOAD, protocol.Error(0, crc, self.crc)
        self.info |= {"model_state": ModelState.READY, "image_bytes": self.total}
        return Status.OK, protocol.Verified(crc, 0, boot=self.info.get("boot", 0))

    def on_verify(self, frame):
        return Status.OK, protocol.Verified(self.info.get("payload_crc", 0), 0, boot=self.info.get("boot", 0))

    def on_generate(self, frame):
        request = self.generate = protocol.Generate.unpack(frame.payload)
        if request.position + len(request.ids) > self.info["seq_len"]:
            return Status.CONTEXT_FULL, protocol.Error(0, request.position + len(request.ids), self.info["seq_len"])
        self.first = request.position + len(request.ids)
        self.tokens, self.running, self.sequence, self.done = [], True, frame.sequence, None
        return Status.OK, protocol.Accepted(self.first)

    def after(self, frame):
        """Events that follow a reply."""
        if frame.opcode == Opcode.GENERATE and not self.hold:
            self._generate()
        elif frame.opcode == Opcode.ABORT and self.running:
            self._end(Reason.ABORT)
        elif frame.opcode == Opcode.RESEND and self.done is not None:
            self._send(Frame(Opcode.DONE, self.sequence, self.done.pack()))

    def _generate(self):
        request = self.generate
        count = min(request.max_new, self.info["seq_len"] - self.first + 1)
        for index in range(count):
            token = self.script(self.first + index)
            self.tokens.append(token)
            self._send(Frame(Opcode.TOKENS, self.sequence, self._tokens(index).pack()))
            if token in request.stops[:request.stop_count]:
                return self._end(Reason.STOP)
        self._end(Reason.CONTEXT if self.first - 1 + count == self.info["seq_len"] else Reason.LENGTH)

    def _tokens(self, index: int, most: int = 100) -> protocol.Tokens:
        entries = []
        for number, token in list(enumerate(self.tokens))[index:index + most]:
            entries += [token, (0xffff_f000 + 1000 * number) % (1 << 32)]
        return protocol.Tokens(index, self.first + index, len(self.tokens), int(self.running), tuple(entries))

    def _end(self, reason: Reason):
        self.running = False
        self.done = protocol.Done(reason, len(self.tokens), self.first - 1 + len(self.tokens), 1, 0xffff_0000, 0, 0, 2,
                                  5)
        self._send(Frame(Opcode.DONE, self.sequence, self.done.pack()))

    def on_abort(self, frame):
        return Status.OK, b""

    def on_resend(self, frame):
        resend = protocol.Resend.unpack(frame.payload)
        return Status.OK, self._tokens(resend.index, resend.most or 100)

    def on_slots(self, frame):
        """As firmware that has one slot only, unless ``max_slots`` says more; each GENERATE is done at once."""
        boot = self.info.get("boot", 0)
        if self.max_slots == 1:
            return Status.BAD_OPCODE, protocol.Error(0, frame.opcode, 0, boot=boot)
        return Status.OK, protocol.Slotted(protocol.Slots.unpack(frame.payload).count or 1, self.info["seq_len"], boot)

    def on_store(self, frame):
        """Takes three looks."""
        size = len(self.memory)
        if protocol.Store.unpack(frame.payload).begin:
            self.looks = 3
            self.stored = bytes(self.memory)
        elif self.stored is not None:
            self.looks -= 1
        state = StoreState.NONE if self.stored is None else StoreState.RUNNING if self.looks else StoreState.DONE
        return Status.OK, protocol.Stored(state, size, size, self.flash_bytes, self.flash_room, 0)

    def on_stats(self, frame):
        return Status.OK, protocol.Stats(counters=tuple(range(45)))

    def on_reset(self, frame):
        return Status.OK, b""

    def on_read(self, frame):
        read = protocol.Read.unpack(frame.payload)
        if read.offset + read.length > len(self.memory):
            return Status.OUT_OF_RANGE, protocol.Error(0, read.offset + read.length, len(self.memory))
        return Status.OK, bytes(self.memory[read.offset:read.offset + read.length])
