"""The C header with everything that firmware must know of spec/: ``python -m llama2_spec.emit_c > llama2_spec.h``."""
import re
import struct
import sys

from llama2_spec import frame, image, model, numerics, packing, program, protocol, registers, sampling, tables
from llama2_spec.wire import C_TYPES

STRUCTURES = (protocol.Error, protocol.Hello, protocol.Device, protocol.LoadBegin, protocol.Load, protocol.Loaded,
              protocol.Verify, protocol.Verified, protocol.Generate, protocol.Accepted, protocol.Abort,
              protocol.Resend,
              protocol.Tokens,
              protocol.Logits, protocol.Done, protocol.Stats, protocol.Reset, protocol.Read,
              protocol.Baud, protocol.Line, protocol.Store, protocol.Stored, protocol.Board, protocol.Lane,
              protocol.Eye,
              protocol.Memory, protocol.Tested, protocol.Stream, protocol.Streamed, protocol.Slots, protocol.Slotted)


def snake(name: str) -> str:
    """``LoadBegin`` as ``load_begin``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def define(name: str, value, doc: str = "") -> str:
    return f"#define {name} {value}" + (f" /* {doc} */" if doc else "")


def enum(name: str, prefix: str, members) -> str:
    """A C enum of a Python one; without a name it is anonymous."""
    rows = "\n".join(f"\t{prefix}_{m.name} = {int(m):#x}," for m in members)
    return f"enum {name} {{\n{rows}\n}};\n".replace("enum  ", "enum ")


def member(name: str, code: str) -> str:
    """One member of a struct, from its struct code."""
    count = f"[{code[:-1]}]" if code[:-1] else ""
    return f"\t{C_TYPES[code[-1]]} {name}{count};"


def structure(name: str, fields, tail=None) -> str:
    """A C struct of a table of (name, code, doc), with its size and every offset asserted."""
    rows = [member(field, code) for field, code, _ in fields]
    if tail:
        rows.append(f"\t{C_TYPES[tail[1]]} {tail[0]}[];")
    text = f"struct {name} {{\n" + "\n".join(rows) + "\n};\n"
    offset = 0
    for field, code, _ in fields:
        text += f'_Static_assert(__builtin_offsetof(struct {name}, {field}) == {offset}, "{name}.{field}");\n'
        offset += struct.calcsize("<" + code)
    return text + f'_Static_assert(sizeof(struct {name}) == {offset}, "{name}");\n'


def array(name: str, values) -> str:
    """A macro with the initialiser of a table."""
    values = list(values)
    lines = [", ".join(f"{v:#x}" for v in values[i:i + 8]) for i in range(0, len(values), 8)]
    return f"#define {name} {{ \\\n\t" + ", \\\n\t".join(lines) + " \\\n}\n"


def crc32_table() -> list[int]:
    """Table of the CRC-32 of IEEE 802.3, reflected: what each value of four bits contributes."""
    table = []
    for nibble in range(16):
        for _ in range(4):
            nibble = nibble >> 1 ^ (0xedb88320 if nibble & 1 else 0)
        table.append(nibble)
    return table


def protocol_section() -> str:
    names = ("VERSION", "LOAD_CHUNK", "LOAD_WINDOW", "MAX_STOPS", "MAX_PROMPT", "MAX_HISTORY", "TOKEN_RING",
             "MAX_SPECULATE", "MAX_SLOTS", "SLOT_SHIFT",
             "LOOKUP_HISTORY", "LOOKUP_SUFFIX", "LOOKUP_STEPS", "MAX_LAYERS", "MAX_BAUD", "MIN_BAUD",
             "MAX_CONFIRM",
             "PLACE_BYTES", "MAX_PLACES", "MAX_STREAM", "TRAP_CAUSES", "RESTART_PLACE_BITS")
    parts = [define(f"PROTOCOL_{name}", getattr(protocol, name)) for name in names]
    parts += [define("FRAME_MAX_PAYLOAD", frame.MAX_PAYLOAD), define("FRAME_MAX", frame.MAX_FRAME),
              define("FRAME_MAX_ENCODED", frame.MAX_ENCODED), define("FRAME_DELIMITER", frame.DELIMITER), "",
              array("CRC32_TABLE", crc32_table())]
    for cls in (protocol.Opcode, protocol.Status, protocol.Subject, protocol.ModelState, protocol.StoreState,
                protocol.Reason, protocol.Restart,
                protocol.GenerateFlag, protocol.ResetFlag):
        name = snake(cls.__name__)
        parts.append(enum(name, name.upper(), cls))
    parts.append(structure("frame_header", frame.Header.FIELDS))
    parts += [structure(f"wire_{snake(cls.__name__)}", cls.FIELDS, cls.TAIL) for cls in STRUCTURES]
    return "\n".join(parts)


def registers_section() -> str:
    parts = []
    for register in registers.REGISTERS:
        low = 0
        for field in register.fields:
            name = f"LLAMA2_{register.name}_{field.name}".upper()
            parts.append(define(f"{name}_LOW", low))
            parts.append(define(f"{name}_MASK", f"{(1 << field.size) - 1:#x}u"))
            low += field.size
    parts.append("")
    for cls, name in ((registers.Window, "window"), (registers.Model, "model"), (registers.Result, "result"),
                      (registers.Counter, "counter"), (registers.Phase, "phase"), (registers.Opcode, "op"),
                      (registers.Dest, "dest")):
        parts.append(enum("", f"LLAMA2_{name.upper()}", cls))
    for bits in registers.COMMAND:
        name = f"LLAMA2_COMMAND_{bits.name.upper()}"
        parts += [define(f"{name}_WORD", bits.word), define(f"{name}_LOW", bits.low),
                  define(f"{name}_MASK", f"{(1 << bits.size) - 1:#x}u")]
    parts += [define("LLAMA2_VERSION", registers.VERSION), define("LLAMA2_WINDOW_BYTES", registers.WINDOW_SIZE),
              define("LLAMA2_QUEUE_DEPTH", registers.QUEUE_DEPTH),
              define("LLAMA2_RESULT_DEPTH", registers.RESULT_DEPTH),
              define("LLAMA2_MAX_CANDIDATES", registers.MAX_CANDIDATES),
              define("LLAMA2_PHASES", len(registers.Phase)), define("LLAMA2_COUNTERS", len(registers.Counter)), ""]
    return "\n".join(parts)


def program_section() -> str:
    """Firmware's table of the commands of a layer, and the constants that go with it."""
    rows = []
    for item in program.LAYER:
        values = (f"LLAMA2_OP_{item.opcode.name}",
                  f"LLAMA2_DEST_{item.dest.name}" if item.dest is not None else "0",
                  f"LLAMA2_PHASE_{item.phase.name}", int(item.fence), f"PROGRAM_PER_{item.per.name}",
                  int(item.tensor is not None), f"IMAGE_KIND_{item.tensor.name}" if item.tensor is not None else "0")
        rows.append(f"\tROW({', '.join(map(str, values))})")
    return "\n".join([
        enum("program_per", "PROGRAM_PER", program.Per),
        define("PROGRAM_LAYER_COMMANDS", len(program.LAYER)),
        define("PROGRAM_LAYER_TENSORS", program.LAYER_TENSORS),
        "/* ROW(op, dest, phase, fence, per, streams, kind) for each. */",
        "#define PROGRAM_LAYER(ROW) \\\n" + ", \\\n".join(rows) + "\n"])


def image_section() -> str:
    return "\n".join([
        define("IMAGE_MAGIC", f"{int.from_bytes(image.MAGIC, 'little'):#x}u"), define("IMAGE_VERSION", image.VERSION),
        define("IMAGE_CHECKED_FROM", image.CHECKED_FROM), define("IMAGE_PAYLOAD_ALIGN", image.PAYLOAD_ALIGN),
        define("BEAT_BYTES", packing.BEAT), define("PACKING_SUPERBLOCK", packing.SUPERBLOCK),
        define("NUMERICS_WORD", numerics.WORD), "",
        enum("image_kind", "IMAGE_KIND", image.Kind), enum("image_format", "IMAGE_FORMAT", image.Format),
        enum("image_kv", "IMAGE_KV", model.KvFormat),
        structure("image_header", image.HEADER_FIELDS), structure("image_entry", image.ENTRY_FIELDS)])


def sampling_section() -> str:
    names = ("ONE", "MAX_TEMPERATURE", "MAX_PENALTY", "COIN_BITS", "DROPPED_BITS", "OUTSIDE_SHIFT",
             "NEAR_BITS", "NEAR_SHIFT", "HISTORY_ALIGN")
    return "\n".join([
        *[define(f"SAMPLING_{name}", f"{getattr(sampling, name)}u") for name in names],
        define("SAMPLING_FINEST", f"{sampling.FINEST}ull"),
        define("SAMPLING_OUTSIDE_LIMIT", f"{sampling.OUTSIDE_LIMIT}ull"),
        define("SAMPLING_REFERENCE_LOW", f"({sampling.REFERENCE_LOW})"),
        define("SAMPLING_REFERENCE_HIGH", sampling.REFERENCE_HIGH),
        define("SAMPLING_MULTIPLIER", f"{sampling.MULTIPLIER:#x}ull"),
        define("NUMERICS_LOG2_E", f"{numerics.LOG2_E}ull"),
        define("NUMERICS_LOG2_SHIFT", numerics.ROW_FRACTION - numerics.SCORE_FRACTION)])


def decoder_section() -> str:
    names = ("CHUNK", "RESIDUAL_FRACTION", "ROW_FRACTION", "HIDDEN_FRACTION", "OUTPUT_FRACTION", "SCORE_FRACTION",
             "WIDE",
             "HEADROOM")
    parts = [define(f"NUMERICS_{name}", getattr(numerics, name)) for name in names]
    for table in tables.TABLES:
        name = table.name.upper()
        parts += [define(f"{name}_SHIFT", table.shift), array(f"{name}_BASE", table.base),
                  array(f"{name}_SLOPE", table.slope)]
    return "\n".join(parts)


def header() -> str:
    """The whole header."""
    return "\n".join([
        "/* What firmware knows of spec/: the wire protocol, the model image, the core and its tables.",
        " * Generated by spec/llama2_spec/emit_c.py; change the spec, not this file. */",
        "#pragma once", "#include <stdint.h>", "",
        "/* Wire protocol */", protocol_section(),
        "/* The core's registers, window and commands */", registers_section(),
        "/* The model image */", image_section(),
        "/* The schedule of a token */", program_section(),
        "/* The sampler */", sampling_section(),
        "/* The decoder's numbers, for its baseline in C */", decoder_section(),
    ])


if __name__ == "__main__":
    sys.stdout.write(header())
