"""The core alone, compiled by Verilator, behind the interface of a testbench in Amaranth's simulator, and a hundred
times as fast: ``run(verilated(columns=2), image, body)`` as :func:`tests.accel.decoder.run`.

A core is compiled once for its parameters; shapes, formats and slots are a model's.
"""
import ctypes
import fcntl
import hashlib
import subprocess
from functools import cache
from pathlib import Path

from accel.core import Core
from soc.amaranth import verilog_file
from soc.sim import tools
from tests.accel.decoder import Driver

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "verilated"
BENCH = Path(__file__).with_name("core_bench.cpp")
BEATS = 1 << 18             #: of the DRAM
NONE = 0xffff_ffff
CHANCES = 1 << 16
FLAGS = ("-O2", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "-Wno-fatal", "-Wno-lint", "-Wno-style")
DEFINES = [f"-DVM_{name}=0" for name in ("COVERAGE", "SC", "TIMING", "TRACE", "TRACE_FST", "TRACE_SAIF", "TRACE_VCD")]
READS = ("read0", "read1", "embed")
DATA = ("read0", "read0", "embed")      #: where their beats come: the stream's two ports share a bus

# Compile ------------------------------------------------------------------------------------------


def ports(core) -> dict[str, int]:
    """Widths of the core's ports, by the names that they have in Verilog."""
    found = {}
    for path, _, value in core.signature.flatten(core):
        found["__".join(map(str, path))] = (value.as_value() if hasattr(value, "as_value") else value).shape().width
    return found


def member(port: str) -> str:
    """A port as a member of the class that Verilator makes."""
    return port.replace("__", "___05F")


def header(core) -> str:
    """The functions by which core_bench.cpp reaches the core's ports."""
    narrow = [port for port, width in ports(core).items() if width <= 32]
    get = "".join(f"\tcase {i}: return top.{member(port)};\n" for i, port in enumerate(narrow))
    put = "".join(f"\tcase {i}: top.{member(port)} = value; break;\n" for i, port in enumerate(narrow))
    offer = "".join(f"\ttop.{member(f'{port}__cmd_ready')} = ready[{i}];\n"
                    f"\ttop.{member(f'{port}__rdata_valid')} = due[{i}] != nullptr;\n"
                    f"\tif (due[{i}])\n\t\tmemcpy(&top.{member(f'{DATA[i]}__rdata_data')}, due[{i}]->words, 16);\n"
                    for i, port in enumerate(READS))
    asks, address = ("".join(f"\tcase {i}: return top.{member(f'{port}__{what}')};\n" for i, port in enumerate(READS))
                     for what in ("cmd_valid", "cmd_addr"))
    write = {name: f"top.{member(f'write__{name}')}" for name in ("cmd_valid", "cmd_addr", "cmd_ready", "wdata_valid",
                                                                   "wdata_data", "wdata_ready")}
    return f"""#include <cstdint>
#include <cstring>
template <class Top> uint32_t core_get(Top &top, uint32_t port)
{{
\tswitch (port) {{
{get}\t}}
\treturn 0;
}}
template <class Top> void core_set(Top &top, uint32_t port, uint32_t value)
{{
\tswitch (port) {{
{put}\t}}
}}
template <class Top, class Beat> void core_offer(Top &top, const bool *ready, const Beat *const *due)
{{
{offer}}}
template <class Top> bool core_asks(Top &top, uint32_t port)
{{
\tswitch (port) {{
{asks}\t}}
\treturn false;
}}
template <class Top> uint32_t core_address(Top &top, uint32_t port)
{{
\tswitch (port) {{
{address}\t}}
\treturn 0;
}}
template <class Top> void core_take(Top &top, bool write_ready, bool data_ready)
{{
\t{write["cmd_ready"]} = write_ready;
\t{write["wdata_ready"]} = data_ready;
}}
template <class Top> bool core_writes(Top &top) {{ return {write["cmd_valid"]}; }}
template <class Top> uint32_t core_write_address(Top &top) {{ return {write["cmd_addr"]}; }}
template <class Top> bool core_has_data(Top &top) {{ return {write["wdata_valid"]}; }}
template <class Top> void core_data(Top &top, uint32_t *words) {{ memcpy(words, &{write["wdata_data"]}, 16); }}
"""


def library(core) -> Path:
    """The compiled core, made unless there is one of the same sources and tools."""
    verilog = verilog_file(core, "core")
    text = header(core)
    digest = hashlib.sha256(repr((verilog.name, text, BENCH.read_bytes(), FLAGS, tools.versions())).encode())
    folder = CACHE / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "core.so").exists():
            (folder / "ports.h").write_text(text)
            _compile(folder, verilog)
    return folder / "core.so"


def _compile(folder: Path, verilog: Path) -> None:
    run = lambda *command: subprocess.run(command, check=True, cwd=folder, capture_output=True)
    run(*tools.command(), "--cc", "--top-module", "core", "--Mdir", "obj", *FLAGS, str(verilog))
    include = tools.verilator_root() / "include"
    # As one file: the headers take longer than the code.
    parts = [*sorted((folder / "obj").glob("*.cpp")), include / "verilated.cpp", include / "verilated_threads.cpp",
             BENCH]
    (folder / "core.cpp").write_text("".join(f'#include "{path}"\n' for path in parts))
    run(tools.compiler(), "-shared", "-fPIC", "-O1", "-w", "-std=c++17", *DEFINES, "-Iobj", "-I.", f"-I{include}",
        f"-I{include}/vltstd", "-o", "core.part", "core.cpp", "-lpthread")
    (folder / "core.part").rename(folder / "core.so")

# A testbench's view -------------------------------------------------------------------------------


class Settings(ctypes.Structure):
    """Of the DRAM, as core_bench.cpp has it."""
    _fields_ = [(name, ctypes.c_uint32) for name in ("beats", "latency", "seed", "stall", "write_stall")]


class Port:
    """A port, or the beginning of the names of several; ``~port`` is its opposite for :meth:`Tick.until`."""

    def __init__(self, name="", inverted=False):
        self._name, self._inverted = name, inverted

    def __getattr__(self, name):
        return Port(f"{self._name}__{name}" if self._name else name)

    def __invert__(self):
        return Port(self._name, not self._inverted)


class Tick:
    """A clock edge to await: ``await ctx.tick().sample(port).until(condition)``."""

    def __init__(self, bench):
        self.bench, self.most, self.sampled, self.condition = bench, 1, None, None

    def sample(self, port):
        self.sampled = port
        return self

    def until(self, port):
        self.condition = port
        return self

    def repeat(self, count):
        self.most = count
        return self

    def __await__(self):
        value = self.bench.tick(self.most, self.condition, self.sampled)
        return (value,)
        yield               # makes a generator of it, which never waits


class Beats:
    """The DRAM's content as a dictionary of beats."""

    def __init__(self, address: int):
        self._bytes = (ctypes.c_uint8 * (16 * BEATS)).from_address(address)

    def get(self, beat, default=0) -> int:
        return int.from_bytes(self._bytes[16 * beat:16 * beat + 16], "little")

    def __setitem__(self, beat, value) -> None:
        self._bytes[16 * beat:16 * beat + 16] = value.to_bytes(16, "little")

    def write(self, data: bytes) -> None:
        """From the first beat on."""
        self._bytes[:len(data)] = data


class Bench:
    """A core at power-up, with ``data`` in its DRAM; both the context of a testbench and its memory.

    ``latency`` in cycles; ``stall`` and ``write_stall`` are chances of a refusal. A wait that has not ended after
    ``deadline`` cycles in all is a TimeoutError.
    """

    def __init__(self, lib, names, data, *, latency=14, stall=0.0, write_stall=0.0, seed=0, deadline=2_000_000):
        self.lib, self.names, self.left = lib, names, deadline
        settings = Settings(BEATS, latency, seed, int(stall * CHANCES), int(write_stall * CHANCES))
        self.handle = lib.bench_new(ctypes.byref(settings))
        self.beats = Beats(lib.bench_beats(self.handle))
        self.beats.write(data)
        self.cycles = 0

    def _index(self, port) -> int:
        return NONE if port is None else self.names[port._name]

    def get(self, port) -> int:
        return self.lib.bench_get(self.handle, self._index(port))

    def set(self, port, value) -> None:
        self.lib.bench_set(self.handle, self._index(port), int(value))

    def tick(self, most=None, condition=None, sampled=None):
        """A :class:`Tick` to await; called by it, the value that ``sampled`` had at the edge."""
        if most is None:
            return Tick(self)
        value = ctypes.c_uint32()
        cycles = self.lib.bench_tick(self.handle, self.left if condition is not None else most,
                                     self._index(condition), condition is not None and condition._inverted,
                                     self._index(sampled), ctypes.byref(value))
        if cycles == NONE or cycles >= self.left:
            raise TimeoutError(f"no end after {self.cycles + self.left} cycles")
        self.left -= cycles
        self.cycles += cycles
        return value.value

    @property
    def written(self) -> range:
        """As many as beats were written."""
        return range(self.lib.bench_written(self.handle))

    def close(self) -> None:
        self.lib.bench_delete(self.handle)


@cache
def _load(path: Path):
    lib = ctypes.CDLL(str(path))
    for name, result, arguments in (
            ("new", ctypes.c_void_p, (ctypes.c_void_p,)), ("delete", None, (ctypes.c_void_p,)),
            ("beats", ctypes.c_void_p, (ctypes.c_void_p,)), ("written", ctypes.c_uint32, (ctypes.c_void_p,)),
            ("fault", ctypes.c_uint32, (ctypes.c_void_p,)),
            ("get", ctypes.c_uint32, (ctypes.c_void_p, ctypes.c_uint32)),
            ("set", None, (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)),
            ("tick", ctypes.c_uint32, (ctypes.c_void_p, *(ctypes.c_uint32,) * 4, ctypes.POINTER(ctypes.c_uint32)))):
        function = getattr(lib, f"bench_{name}")
        function.restype, function.argtypes = result, arguments
    return lib


class VerilatedCore(Port):
    """A compiled core: its ports by their names, as an Amaranth component has them."""

    def __init__(self, **parameters):
        super().__init__()
        core = Core(**parameters)
        self._lib = _load(library(core))
        self._names = {port: i for i, port in
                       enumerate(port for port, width in ports(core).items() if width <= 32)}
        self.columns, self.candidate_sets = core.columns, core.candidate_sets


def run(dut: VerilatedCore, image, body, *, deadline=2_000_000, **dram):
    """``await body(driver, memory)`` against a core with ``image`` in its DRAM, and what the DRAM met; the memory is
    valid until ``close``."""
    bench = Bench(dut._lib, dut._names, bytes(image.data), deadline=deadline, **dram)

    async def testbench():
        driver = Driver(bench, dut)
        await driver.setup(image)
        await body(driver, bench)
    coroutine = testbench()
    try:
        coroutine.send(None)        # nothing in it waits
    except StopIteration:
        pass
    assert not dut._lib.bench_fault(bench.handle), "write data was not there when it was fetched, or beyond the DRAM"
    return bench
