"""firmware/llama2.c reads and writes the core's registers and window as the tables of llama2_spec.registers say; and
firmware/main.c brings everything up in its order."""
import ctypes
import shutil
import subprocess

import pytest

from llama2_spec import emit_c
from llama2_spec.registers import REGISTERS, WINDOW_SIZE, Counter, Model, Opcode, Phase, Result, Window, encode
from tests.firmware.library import FLAGS, ROOT, Candidate

READ = [register.name for register in REGISTERS if register.access == "ro" and register.name != "status"]
#: A core that is memory: its window, its registers, and a status that has a value for each look at it.
CSR = """
#pragma once
#include <stdint.h>
extern uint32_t fake_window[], fake_registers[];
#define LLAMA2_BASE ((uintptr_t)fake_window)
uint32_t fake_status(void);
void fake_log(uint32_t what, uint32_t value);
static inline uint32_t llama2_status_read(void) { return fake_status(); }
static inline void llama2_control_write(uint32_t value) { fake_log(0, value); }
static inline void llama2_ev_enable_write(uint32_t value) { fake_log(1, value); }
static inline void irq_setie(uint32_t value) { fake_log(2, value); }
""" + "".join(f"static inline uint32_t llama2_{name}_read(void) {{ return fake_registers[{n}]; }}\n"
              for n, name in enumerate(READ))
CORE = """
#include <generated/csr.h>
#include "llama2.h"
uint32_t fake_window[%d], fake_registers[%d], statuses[64], looks, last, log_count, logged[256][2];
uint32_t fake_status(void)
{
    uint32_t status = statuses[looks];
    looks += looks < last;
    return status;
}
void fake_log(uint32_t what, uint32_t value)
{
    logged[log_count][0] = what;
    logged[log_count++ & 255][1] = value;
}
""" % (WINDOW_SIZE // 4, len(READ))
CONTROL, EVENTS, INTERRUPTS = range(3)
MAIN = """
#include <setjmp.h>
#include <stdint.h>
static jmp_buf enough;
char order[64];
static int length;
static void note(char what)
{
    if (length == 12)
        longjmp(enough, 1);
    order[length++] = what;
}
void restart_begin(void) { note('b'); }
void board_alive(void) { note('a'); }
void board_init(void) { note('i'); }
void llama2_init(void) { note('l'); }
void install_init(void) { note('m'); }
void device_poll(void) { note('d'); }
void restart_poll(void) { note('r'); }
int firmware_main(void);
void run(void)
{
    if (setjmp(enough) == 0)
        firmware_main();
}
"""


def bits(name, **values):
    """A register's word of its fields' values."""
    word = shift = 0
    for field in next(register for register in REGISTERS if register.name == name).fields:
        word |= values.pop(field.name, 0) << shift
        shift += field.size
    assert not values
    return word


ENABLED = bits("control", irq_enable=1)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama2")
    (folder/"generated").mkdir()
    for name, text in (("generated/llama2_spec.h", emit_c.header()), ("generated/csr.h", CSR),
                       ("generated/mem.h", ""), ("irq.h", ""), ("core.c", CORE), ("order.c", MAIN)):
        (folder/name).write_text(text)
    includes = [f"-I{path}" for path in (folder, ROOT/"firmware")]
    subprocess.run(["gcc", *FLAGS, "-shared", *includes, "-o", folder/"core.so", folder/"core.c",
                    ROOT/"firmware"/"llama2.c"], check=True)
    subprocess.run(["gcc", *FLAGS, "-shared", *includes, "-Dmain=firmware_main", "-o", folder/"main.so",
                    folder/"order.c", ROOT/"firmware"/"main.c"], check=True)
    return folder


class Core:
    """The core's registers as memory, behind the firmware."""
    def __init__(self, library):
        self.library = library
        for name in ("queue_free", "interrupts", "next", "candidate_token", "crc", "cycles", "stores", "counter",
                     "errors"):
            getattr(library, f"llama2_{name}").restype = ctypes.c_uint32
        for name in ("busy", "stands", "result_waits", "logit_take"):
            getattr(library, f"llama2_{name}").restype = ctypes.c_bool
        self.window = (ctypes.c_uint32*(WINDOW_SIZE//4)).in_dll(library, "fake_window")
        self.registers = (ctypes.c_uint32*len(READ)).in_dll(library, "fake_registers")

    def status(self, *words):
        """What the next looks at the status see; the last one stays."""
        (ctypes.c_uint32*64).in_dll(self.library, "statuses")[:len(words)] = words
        self._number("looks").value, self._number("last").value = 0, len(words) - 1

    def _number(self, name):
        return ctypes.c_uint32.in_dll(self.library, name)

    def looks(self):
        return self._number("looks").value

    def written(self):
        """(what, value) of the registers written since the last call."""
        log = (ctypes.c_uint32*512).in_dll(self.library, "logged")
        count = self._number("log_count")
        found = [(log[2*n], log[2*n + 1]) for n in range(count.value)]
        count.value = 0
        return found

    def __getattr__(self, name):
        return getattr(self.library, f"llama2_{name}")


@pytest.fixture
def core(built, tmp_path):
    return Core(ctypes.CDLL(str(shutil.copyfile(built/"core.so", tmp_path/"core.so"))))


def status(**fields):
    return bits("status", **fields)


def fill(core):
    core.window[:] = [0x1000_0001*n & 0xffffffff for n in range(len(core.window))]


def at(core, place, word=0):
    return core.window[place//4 + word]


def test_limits_are_the_registers(core):
    geometry = {"version": 200, "columns": 9, "lanes": 150, "candidates": 170, "candidate_sets": 13}
    core.registers[READ.index("geometry")] = bits("geometry", **geometry)
    largest = ["dim", "hidden_dim", "head_dim", "kv_dim", "heads", "vocab_size", "seq_len"]
    for n, name in enumerate(largest):
        core.registers[READ.index(f"max_{name}")] = 0xffff0000 + n
    limits = (ctypes.c_uint32*12)()
    core.limits(limits)
    assert list(limits) == [*geometry.values(), *(0xffff0000 + n for n in range(7))]


def test_an_aborting_queue_has_no_place(core):
    core.status(status(queue_free=77), status(queue_free=77, aborting=1), status(queue_free=0))
    assert [core.queue_free() for _ in range(3)] == [77, 0, 0]


def test_words_go_to_their_places(core):
    core.push(*range(11, 15))
    core.token_write(5, 0x3ffff)
    core.model_write(Model.KV_FORMAT, 21)
    core.rope_write(63, 22)
    core.candidates_select(6)
    found = {4*n: word for n, word in enumerate(core.window) if word}
    assert found == {Window.COMMAND: 11, Window.COMMAND + 4: 12, Window.COMMAND + 8: 13, Window.COMMAND + 12: 14,
                     Window.TOKEN + 20: 0x3ffff, Window.MODEL + 4*Model.KV_FORMAT: 21, Window.ROPE + 4*63: 22,
                     Window.CANDIDATES: 6}


def test_a_crc_is_the_command_of_its_layout(core):
    core.crc_begin(0x123456, 99)
    assert core.window[:4] == list(encode(Opcode.CRC, phase=Phase.OTHER, base=0x123456, beats=99))


def test_words_come_from_their_places(core):
    fill(core)
    assert core.next() == at(core, Window.NEXT) and core.candidate_token(9) == at(core, Window.CANDIDATES, 18)
    assert core.counter(8, Counter.STALLED) == at(core, Window.COUNTERS, 8*8 + Counter.STALLED)
    found = (Candidate*3)()
    core.candidates_read(found, 2)
    assert [(one.token, one.logit & 0xffffffff) for one in found] == [
        (at(core, Window.CANDIDATES, 2*n), at(core, Window.CANDIDATES, 2*n + 1)) for n in range(2)] + [(0, 0)]
    for n, name in enumerate(("crc", "cycles", "stores", "errors")):
        core.registers[READ.index(name)] = 0x80000000 + n
    assert [core.crc(), core.cycles(), core.stores(), core.errors()] == [0x80000000 + n for n in range(4)]


class Result_(ctypes.Structure):
    """struct llama2_result."""
    _fields_ = [("token", ctypes.c_uint32), ("cycles", ctypes.c_uint32), ("maximum", ctypes.c_int32),
                ("mass", ctypes.c_uint64), ("kept", ctypes.c_uint32), ("column", ctypes.c_uint32),
                ("total", ctypes.c_uint32)]


def test_a_result_is_read_word_by_word_and_released(core):
    words = {Result.TOKEN: 31999, Result.LOGIT: 5, Result.CYCLES: 0xfffffff0, Result.MAXIMUM: 0xffffff85,
             Result.MASS_LO: 0x89abcdef, Result.MASS_HI: 0x4567, Result.KEPT: 200 | 7 << 8, Result.TOTAL: 77}
    for word, value in words.items():
        core.window[Window.RESULT//4 + word] = value
    result = Result_()
    core.result_read(ctypes.byref(result))
    assert (result.token, result.cycles, result.maximum, result.mass, result.kept, result.column, result.total) == (
        31999, 0xfffffff0, -123, 0x4567_89abcdef, 200, 7, 77)
    core.interrupt()
    assert core.result_waits() and core.written() == [(CONTROL, 0)]     # it looks away until the result is taken
    core.result_release()
    assert not core.result_waits() and core.written() == [(CONTROL, ENABLED)] and at(core, Window.RESULT) == 0
    assert core.interrupts() == 1


def test_a_logit_is_taken_once_it_is_there(core):
    core.status(status(), status(logit_valid=1))
    core.window[Window.LOGIT//4] = 0xfffffffe
    logit = ctypes.c_int32(3)
    assert not core.logit_take(ctypes.byref(logit)) and logit.value == 3 and at(core, Window.LOGIT) == 0xfffffffe
    assert core.logit_take(ctypes.byref(logit)) and logit.value == -2 and at(core, Window.LOGIT) == 0


@pytest.mark.parametrize("after, looks, waits, looked", [(0, 3, True, 0), (2, 3, True, 2), (3, 3, False, 3),
                                                         (1, 0, False, 0)])
def test_a_result_is_awaited_for_so_many_looks(core, after, looks, waits, looked):
    """Interrupts are off meanwhile, so that it is found by one of the two alone."""
    core.status(*[status(busy=1)]*after, status(result_valid=1))
    core.result_await(looks)
    assert core.result_waits() == waits and core.looks() == looked
    assert core.written() == [(INTERRUPTS, 0), *[(CONTROL, 0)]*waits, (INTERRUPTS, 1)]


def test_a_result_that_the_interrupt_told_is_not_awaited(core):
    core.interrupt()
    core.written()
    core.status(status(result_valid=1))
    core.result_await(5)
    assert core.written() == [(INTERRUPTS, 0), (INTERRUPTS, 1)] and core.result_waits()


def test_an_abort_takes_all_that_waits_and_ends_with_the_core(core):
    """A logit, a result, then outstanding reads; each alone keeps it going."""
    core.window[Window.RESULT//4] = core.window[Window.LOGIT//4] = 9
    core.interrupt()
    core.written()
    core.status(status(logit_valid=1), status(), status(busy=1),                       # a look of logit_take's each
                status(), status(aborting=1),
                status(), status(result_valid=1),
                status(), status(), status(busy=1, aborting=1, result_valid=1))
    core.abort()
    assert core.looks() == 9 and at(core, Window.RESULT) == at(core, Window.LOGIT) == 0
    assert core.written() == [(CONTROL, bits("control", abort=1)), (CONTROL, ENABLED)] and not core.result_waits()


def test_an_abort_leaves_a_result_that_is_none(core):
    core.window[Window.RESULT//4] = 9
    core.abort()
    assert at(core, Window.RESULT) == 9


def test_a_core_stands_that_is_busy_and_moves_nothing(core):
    """Neither a beat in any phase nor a command; and waits for nothing that firmware takes."""
    core.status(status(busy=1, queue_free=5))
    assert [core.stands() for _ in range(3)] == [False, True, True]
    for phase in Phase:
        core.window[Window.COUNTERS//4 + 8*phase + Counter.BEATS] += 3
        assert [core.stands(), core.stands()] == [False, True]
    core.window[Window.COUNTERS//4 + Counter.CYCLES] += 3
    assert core.stands()
    core.status(status(busy=1, queue_free=6))
    assert [core.stands(), core.stands()] == [False, True]
    for other in (dict(), dict(busy=1, result_valid=1), dict(busy=1, logit_valid=1)):
        core.status(status(queue_free=6, **other))
        assert not core.stands()
    core.status(status(busy=1, queue_free=6))
    assert core.stands()


def test_busy_is_the_status_bit(core):
    core.status(status(busy=1), status(queue_free=255, aborting=1, result_valid=1, logit_valid=1))
    assert [core.busy(), core.busy()] == [True, False]


def test_begins_with_nothing_left_of_before(core):
    core.init()
    assert core.written() == [(EVENTS, 1), (CONTROL, bits("control", abort=1)), (CONTROL, ENABLED),
                              (CONTROL, bits("control", clear_errors=1, irq_enable=1)),
                              (CONTROL, bits("control", clear_counters=1, irq_enable=1))]


def test_main_brings_up_everything_and_serves(built):
    """Why it starts is learned first; the watchdog is armed before DRAM's training; then both polls in turn."""
    library = ctypes.CDLL(str(built/"main.so"))
    library.run()
    assert (ctypes.c_char*64).in_dll(library, "order").value == b"bailm" + b"dr"*3 + b"d"
