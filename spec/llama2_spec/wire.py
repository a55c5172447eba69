"""Fixed little-endian structures whose one table gives Python's pack/unpack, C's struct and the docs' byte table."""
from __future__ import annotations

import struct
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self, dataclass_transform
else:
    def dataclass_transform(**_):           # Python 3.11 has it; only type checkers look at it
        return lambda decorator: decorator

AnyStructure = TypeVar("AnyStructure", bound="Structure")

C_TYPES = {"B": "uint8_t", "H": "uint16_t", "I": "uint32_t", "Q": "uint64_t", "i": "int32_t", "s": "char",
           "b": "int8_t", "f": "float"}
SIZES = {"B": 1, "H": 2, "I": 4, "Q": 8, "i": 4, "s": 1}


def wire(code: str, doc: str, default: Any = 0) -> Any:
    """A field: ``code`` as in :mod:`struct`, with a count for an array (``4I``) or zero-padded text (``32s``)."""
    count = code[:-1]
    if count and code[-1] == "s":
        default = ""
    elif count:
        default = (0,) * int(count)
    return field(default=default, metadata={"code": code, "doc": doc})


def tail(code: str, doc: str) -> Any:
    """The last field: as many items of one type as the payload has left; ``s`` are bytes."""
    return field(default=b"" if code == "s" else (), metadata={"code": code, "doc": doc, "tail": True})


class Structure:
    """The members that :func:`structure` adds to a class: its table, ``pack`` and ``unpack``."""
    FIELDS: ClassVar[tuple[tuple[str, str, str], ...]]      #: name, code and doc of every field of fixed size
    TAIL: ClassVar[tuple[str, str, str] | None]             #: likewise of the tail, if there is one
    FORMAT: ClassVar[struct.Struct]                         #: of the fields, without the tail

    def pack(self) -> bytes:
        """The bytes on the wire."""
        values: list[Any] = []
        for name, code, _ in self.FIELDS:
            value = getattr(self, name)
            if code[-1] == "s":
                values.append(value.encode()[:int(code[:-1])])
            elif code[:-1]:
                values += list(value) + [0] * (int(code[:-1]) - len(value))
            else:
                values.append(int(value))
        packed = self.FORMAT.pack(*values)
        if self.TAIL:
            name, code, _ = self.TAIL
            items = getattr(self, name)
            packed += bytes(items) if code == "s" else struct.pack(f"<{len(items)}{code}", *items)
        return packed

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """The structure in exactly these bytes; ValueError if they are too few, too many or end inside an item."""
        size = cls.FORMAT.size
        if len(raw) < size or (len(raw) > size and not cls.TAIL):
            raise ValueError(f"{cls.__name__} takes {size} bytes, not {len(raw)}")
        values, named = list(cls.FORMAT.unpack(raw[:size])), {}
        for name, code, _ in cls.FIELDS:
            if code[-1] == "s":
                named[name] = values.pop(0).rstrip(b"\0").decode("utf-8", "replace")
            elif code[:-1]:
                count = int(code[:-1])
                named[name], values = tuple(values[:count]), values[count:]
            else:
                named[name] = values.pop(0)
        if cls.TAIL:
            name, code, _ = cls.TAIL
            rest = raw[size:]
            count, odd = divmod(len(rest), SIZES[code])
            if odd:
                raise ValueError(f"{cls.__name__}.{name} ends inside an item")
            named[name] = rest if code == "s" else struct.unpack(f"<{count}{code}", rest)
        return cls(**named)


@dataclass_transform(frozen_default=True, field_specifiers=(wire, tail))
def structure(cls: type[AnyStructure]) -> type[AnyStructure]:
    """Class decorator: a frozen dataclass with the members of :class:`Structure`.

    Every field sits at a multiple of its own size, so that C needs no packed attribute; ValueError otherwise.
    """
    cls = dataclass(frozen=True)(cls)
    # It is a dataclass by now, which mypy does not see.
    found = fields(cls)     # type: ignore[arg-type]
    rows = [(f.name, f.metadata["code"], f.metadata["doc"], f.metadata.get("tail", False)) for f in found]
    cls.FIELDS = tuple(row[:3] for row in rows if not row[3])
    cls.TAIL = next((row[:3] for row in rows if row[3]), None)
    cls.FORMAT = struct.Struct("<" + "".join(code for _, code, _ in cls.FIELDS))
    offset, widest = 0, 1
    for name, code, _ in cls.FIELDS:
        if offset % SIZES[code[-1]]:
            raise ValueError(f"{cls.__name__}.{name} is not aligned to its size")
        offset += struct.calcsize("<" + code)
        widest = max(widest, SIZES[code[-1]])
    if offset % widest:
        raise ValueError(f"{cls.__name__} would be padded at its end")
    return cls
