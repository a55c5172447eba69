"""The schedule of a token: its tensors are those of an image, its commands have the names of their fields, and a pass
has an end."""
import pytest

from llama2_spec import program
from llama2_spec.image import order, row_layout
from llama2_spec.model import ModelConfig
from llama2_spec.program import Kind
from llama2_spec.registers import COMMAND, COMMON, LAYOUTS, Dest, Opcode, encode
from tests.accel.decoder import KV_BASE, mixed, program as step, random_image

CONFIG = ModelConfig(dim=32, hidden_dim=44, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, vocab_size=24, seq_len=32)


def fields(command):
    return {b.name: command[b.word] >> b.low & (1 << b.size) - 1 for b in COMMAND}


def test_every_tensor_is_streamed_once_and_in_order():
    image = random_image(CONFIG, 1)
    streamed = [c["base"] for c in map(fields, step(image, [3], 5)) if c["opcode"] in (Opcode.GAIN, Opcode.MATVEC)]
    assert streamed == [entry.offset_beats for entry in image.entries]
    assert [(kind, layer) for kind, layer, _ in order(CONFIG)] == [(entry.kind, entry.layer) for entry in image.entries]


def test_norms_belong_to_the_matrix_that_follows():
    names = [names for kind, _, names in program.tensors(2, True) if kind == Kind.GAIN]
    assert names == [("layers.0.attention_norm",), ("layers.0.ffn_norm",), ("layers.1.attention_norm",),
                     ("layers.1.ffn_norm",),
                     ("final_norm",)]


@pytest.mark.parametrize("columns", [1, 3])
def test_what_is_per_column_is_pushed_for_each_and_waits_once(columns):
    commands = [fields(c) for c in step(random_image(CONFIG, 1), list(range(columns)), 5, classify=False)]
    for opcode in (Opcode.EMBED, Opcode.ATTEND):
        mine = [c for c in commands if c["opcode"] == opcode][:columns]
        assert [(c["column"], c["fence"]) for c in mine] == [(i, i == 0) for i in range(columns)]
    assert not any(c["dest"] == Dest.LOGITS for c in commands)


def test_a_run_is_stored_at_its_slot_and_attended_from_its_first_column():
    image = random_image(CONFIG, 1)
    columns = [(2, 7), (0, 0), (0, 1), (1, 5)]
    commands = [fields(c) for c in mixed(image, range(4), columns, first=3)]
    row, layer = row_layout(CONFIG)[1], CONFIG.seq_len * row_layout(CONFIG)[1]
    base = [KV_BASE + slot * CONFIG.n_layers * layer for slot in range(3)]
    assert [c["position"] for c in commands if c["opcode"] == Opcode.EMBED] == [7, 0, 1, 5]
    for i in range(CONFIG.n_layers):
        stores = [c for c in commands if c["opcode"] == Opcode.STORE][3 * i:3 * i + 3]
        assert [(c["first"], c["column"], c["base"] - i * layer) for c in stores] == [
            (0, 0, base[2] + 7 * row), (1, 2, base[0]), (3, 3, base[1] + 5 * row)]
        attends = [c for c in commands if c["opcode"] == Opcode.ATTEND][4 * i:4 * i + 4]
        assert [(c["column"], c["first"], c["rows"], c["base"] - i * layer, c["beats"]) for c in attends] == [
            (0, 0, 8, base[2], 7 * row), (1, 1, 1, base[0], 0), (2, 1, 2, base[0], 0), (3, 3, 6, base[1], 5 * row)]
    assert (commands[-1]["column"], commands[-1]["columns"]) == (3, 3)


@pytest.mark.parametrize("columns, message", [
    ([(0, 3), (0, 5)], "slot 0: position 5 does not follow 3"), ([(0, 3), (1, 0), (0, 4)], "slot 0: .* no neighbours")])
def test_columns_that_are_no_runs_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        list(mixed(random_image(CONFIG, 1), [1, 2, 3], columns))


def test_a_command_has_the_fields_of_its_opcode():
    for opcode, layout in LAYOUTS.items():
        places = sorted((32 * b.word + b.low, b.size) for b in (*COMMON, *layout))
        assert all(at + size <= after for (at, size), (after, _) in zip(places, places[1:])), f"{opcode.name} overlaps"
    for name in {b.name for b in COMMAND}:
        assert len({(b.word, b.low, b.size, b.signed) for layout in LAYOUTS.values() for b in layout
                    if b.name == name}) <= 1, f"{name} is not in one place"
    with pytest.raises(ValueError, match="ATTEND has no field token; it has opcode, "):
        encode(Opcode.ATTEND, token=7)
    with pytest.raises(ValueError, match="columns = 8 does not fit 3 bits"):
        encode(Opcode.NOP, columns=8)
    for exponent in (-128, 127):
        assert fields(encode(Opcode.GAIN, exponent=exponent))["exponent"] == exponent & 0xff
    for exponent in (-129, 128):
        with pytest.raises(ValueError, match=f"exponent = {exponent} does not fit 8 bits"):
            encode(Opcode.GAIN, exponent=exponent)
