"""Bad commands by chance: what is sent, and how the device, or the client before it, refuses it."""
from collections.abc import Callable
from dataclasses import dataclass, replace

from llama2_host.generation import Options, Sampling
from llama2_spec.protocol import (MAX_HISTORY, MAX_PROMPT, MAX_SLOTS, MAX_SPECULATE, MAX_STOPS, MAX_STREAM, SLOT_SHIFT,
                                  Baud, Generate, GenerateFlag, Lane, Load, LoadBegin, Memory, Opcode, Read, Resend,
                                  Slots, Status, Store, Stream, Subject)
from llama2_spec.sampling import MAX_PENALTY, MAX_TEMPERATURE, ONE

DRAM_BYTES = 256 << 20
NOBODYS = 0x7fff_fff0       #: the number of no generation: the client's grow from a random one in few steps


@dataclass(frozen=True)
class Raw:
    """A payload as it is."""
    data: bytes

    def pack(self) -> bytes:
        return self.data


@dataclass(frozen=True)
class Bad:
    """A request, and the refusal of it; ``limit`` is None where the refusal's depends on more than the request.

    ``busy``: while a generation runs, the device may say BUSY instead.
    """
    name: str
    opcode: Opcode
    payload: object
    status: Status
    subject: Subject = Subject.NONE
    value: int = 0
    limit: int | None = None
    busy: bool = True


def plain(slot: int) -> Generate:
    """A request that nothing is wrong with."""
    return Generate(flags=slot << SLOT_SHIFT, position=0, max_new=4, temperature=0, top_k=0, top_p=0, min_p=0,
                    repetition_window=0, stop_count=0, speculate=0, temperature_low=0, seed=1, stops=(), ids=(0,))


def bad_ranges(rng, slot: int) -> list[Bad]:
    """GENERATE with a number outside its range, which is looked at first."""
    good = plain(slot)
    beyond = 1 + int(rng.random() ** 4 * (1 << 20))
    ranges = [
        ("ids", Subject.PROMPT_COUNT, 0, 1, {"ids": ()}),
        ("ids", Subject.PROMPT_COUNT, MAX_PROMPT + 1, MAX_PROMPT, {"ids": (0,) * (MAX_PROMPT + 1)}),
        *((name, subject, most + beyond, most, {name: most + beyond}) for name, subject, most in (
            ("stop_count", Subject.STOP_COUNT, MAX_STOPS), ("temperature", Subject.TEMPERATURE, MAX_TEMPERATURE),
            ("top_p", Subject.TOP_P, ONE), ("min_p", Subject.MIN_P, ONE),
            ("repetition_penalty", Subject.PENALTY, MAX_PENALTY),
            ("repetition_window", Subject.WINDOW, MAX_HISTORY), ("speculate", Subject.SPECULATE, MAX_SPECULATE))),
        ("repetition_penalty", Subject.PENALTY, ONE - 1, ONE, {"repetition_penalty": ONE - 1}),
        ("speculate", Subject.SPECULATE, 2, 0, {"speculate": 2, "temperature": ONE}),
        ("speculate", Subject.SPECULATE, 1, 0, {"speculate": 1, "flags": good.flags | GenerateFlag.DUMP_LOGITS}),
    ]
    return [Bad(f"GENERATE: {name}", Opcode.GENERATE, replace(good, **fields), Status.BAD_VALUE, subject, value, limit,
                busy=False) for name, subject, value, limit, fields in ranges]


def bad_places(number: int, slot, config, count: int, idle: bool) -> list[Bad]:
    """GENERATE for a slot, a position or a token that does not exist."""
    good = plain(number)
    bad = [Bad("GENERATE: slot", Opcode.GENERATE, replace(good, flags=count + 1 << SLOT_SHIFT), Status.BAD_VALUE,
               Subject.SLOT, count + 1, count - 1, busy=False),
           Bad("GENERATE: token", Opcode.GENERATE, replace(good, ids=(0, config.vocab_size)), Status.BAD_TOKEN,
               value=config.vocab_size, limit=config.vocab_size),
           Bad("GENERATE: past all", Opcode.GENERATE,
               replace(good, position=slot.length + 1, flags=good.flags | GenerateFlag.PRELOADED), Status.BAD_POSITION,
               value=slot.length + 1, limit=slot.length)]
    if slot.length < MAX_PROMPT:
        bad.append(Bad("GENERATE: context", Opcode.GENERATE, replace(good, ids=(0,) * (slot.length + 1)),
                       Status.CONTEXT_FULL, value=slot.length + 1, limit=slot.length))
    if idle and slot.exact and slot.known < slot.length:
        bad.append(Bad("GENERATE: position", Opcode.GENERATE, replace(good, position=slot.known + 1),
                       Status.BAD_POSITION, value=slot.known + 1, limit=slot.known))
    return bad


def bad_others(rng, config) -> list[Bad]:
    """All other requests."""
    far = DRAM_BYTES + 4 * rng.randrange(1 << 20)
    return [
        Bad("no opcode", Opcode.BASELINE, Raw(bytes(rng.randrange(9))), Status.BAD_OPCODE, value=int(Opcode.BASELINE),
            busy=False),
        Bad("RESET: length", Opcode.RESET, Raw(bytes(5)), Status.BAD_LENGTH, value=5, limit=4, busy=False),
        Bad("ABORT: length", Opcode.ABORT, Raw(bytes(3)), Status.BAD_LENGTH, value=3, limit=0, busy=False),
        Bad("RESEND: nobody's", Opcode.RESEND, Resend(0, NOBODYS, 1), Status.FORGOTTEN, value=NOBODYS, busy=False),
        Bad("READ: length", Opcode.READ, Read(0, 6), Status.BAD_VALUE, Subject.LENGTH, 6),
        Bad("READ: beyond", Opcode.READ, Read(far, 8), Status.OUT_OF_RANGE, value=far, limit=DRAM_BYTES),
        Bad("LOAD: no upload", Opcode.LOAD, Load(0, bytes(8)), Status.NOT_LOADING),
        Bad("LOAD_BEGIN: memory", Opcode.LOAD_BEGIN, LoadBegin(far + 4, 0), Status.NO_MEMORY, value=far + 4,
            limit=DRAM_BYTES),
        Bad("SLOTS: count", Opcode.SLOTS, Slots(MAX_SLOTS + 1, 0), Status.BAD_VALUE, Subject.SLOT, MAX_SLOTS + 1,
            MAX_SLOTS),
        Bad("SLOTS: length", Opcode.SLOTS, Slots(1, config.seq_len + 1), Status.BAD_VALUE, Subject.SEQ_LEN,
            config.seq_len + 1, config.seq_len),
        Bad("STORE: no flash", Opcode.STORE, Store(1), Status.NO_FLASH, busy=False),
        Bad("BAUD: rate", Opcode.BAUD, Baud(1, 0), Status.BAD_VALUE, Subject.BAUD, 1),
        Bad("LANE: none", Opcode.LANE, Lane(99, 0, 0), Status.BAD_VALUE, Subject.LANE, 99),
        Bad("MEMORY: place", Opcode.MEMORY, Memory(4, 32, 1), Status.BAD_VALUE, Subject.PLACE, 4, DRAM_BYTES),
        Bad("STREAM: too long", Opcode.STREAM, Stream(0, MAX_STREAM + 16), Status.BAD_VALUE, Subject.PLACE, 0,
            DRAM_BYTES),
    ]


def bad_command(rng, number: int, slot, config, count: int, *, idle: bool) -> Bad:
    """One of them; ``slot`` is the oracle's of ``number``, of ``count``, and ``idle`` if no generation runs there."""
    kinds = bad_ranges(rng, number), bad_places(number, slot, config, count, idle), bad_others(rng, config)
    return rng.choice(rng.choice(kinds))


def bad_call(rng, device, slots: int) -> tuple[str, Callable]:
    """What the client itself refuses, by name."""
    def of(**options):
        return lambda: device.generate([0], Options(sampling=Sampling(**options)))
    return rng.choice([
        ("temperature -1", of(temperature=-1)), ("top_p 1.5", of(top_p=1.5)), ("min_p nan", of(min_p=float("nan"))),
        ("penalty 17", of(repetition_penalty=17)), ("window 257", of(repetition_window=MAX_HISTORY + 1)),
        ("speculate, sampled", of(speculate=1)), ("top_k 1.5", of(top_k=1.5)),
        ("no ids", lambda: device.generate([], Options())), ("text", lambda: device.generate("abc", Options())),
        ("an id of -1", lambda: device.generate([-1], Options())),
        ("stops", lambda: device.generate([0], Options(stops=(0,) * (MAX_STOPS + 1)))),
        ("slot", lambda: device.generate([0], Options(), slot=slots)),
        ("read of 3 bytes", lambda: device.read(0, 3)),
    ])
