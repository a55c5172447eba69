"""The commands of steps that mix slots: firmware pushes those of the schedule, word for word."""
import ctypes
import random

import pytest

from llama2_spec.program import commands, slot_beats
from tests.firmware.images import layout, small_image
from tests.firmware.library import Device

MAX_COLUMNS = 8         # PROGRAM_MAX_COLUMNS


class Column(ctypes.Structure):
    _fields_ = [("token", ctypes.c_uint32), ("position", ctypes.c_uint32), ("segment", ctypes.c_uint32)]


class Step(ctypes.Structure):
    """struct program_step of firmware/program.h."""
    _fields_ = [("count", ctypes.c_uint32), ("columns", Column * MAX_COLUMNS), ("argmax", ctypes.c_bool),
                ("awaited", ctypes.c_bool), ("classify", ctypes.c_bool), ("first", ctypes.c_uint32),
                ("keep", ctypes.c_bool), ("dump", ctypes.c_bool)]


def push(device, tokens, columns, **options):
    """Let firmware push a step, and give its commands."""
    image, _, row_beats, _ = layout(small_image())
    segments = slot_beats(image.config, row_beats)
    pushed = [Column(token, position, slot * segments) for token, (slot, position) in zip(tokens, columns)]
    step = Step(len(columns), (Column * MAX_COLUMNS)(*pushed), **options)
    begin = len(device.commands())
    device.library.program_push.restype = ctypes.c_bool
    device.library.program_start(ctypes.byref(step))
    while not device.library.program_push(True):
        device.library.fake_execute(3)
    device.library.fake_execute(1000)
    while device.library.llama2_result_waits() & 1:
        device.library.llama2_result_release()
    return device.commands()[begin:]


def random_step(rng, most):
    """(slot, position) pairs of one run a slot, in any order."""
    columns, slots = [], rng.sample(range(9), most)
    while len(columns) < most and (not columns or rng.random() < 0.8):
        slot, position = slots.pop(), rng.choice([0, rng.randrange(500)])
        columns += [(slot, position + i) for i in range(rng.randint(1, most - len(columns)))]
    return columns


@pytest.mark.parametrize("most", [1, 2, 4, 8])
def test_mixed_steps_are_those_of_the_schedule(firmware, most):
    rng, device = random.Random(most), Device(firmware, small_image(), columns=most)
    image, kv_base, row_beats, _ = layout(small_image())
    runs = set()
    for _ in range(12):
        columns = random_step(rng, most)
        tokens, first = [rng.randrange(100) for _ in columns], rng.randrange(len(columns))
        classify = rng.random() < 0.7
        runs.add(len({slot for slot, _ in columns}))
        assert push(device, tokens, columns, classify=classify, first=first) == list(commands(
            image, tokens, columns, kv_base=kv_base, row_beats=row_beats, classify=classify, first=first))
    assert max(runs) > 1 or most == 1
