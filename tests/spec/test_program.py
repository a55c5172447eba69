"""The schedule of a token: its tensors are those of an image, its commands have the names of their fields, and a pass
has an end."""
import pytest

from llama2_spec import program
from llama2_spec.image import order
from llama2_spec.model import ModelConfig
from llama2_spec.program import Kind
from llama2_spec.registers import ALIASES, COMMAND, Dest, Opcode, encode
from tests.accel.decoder import program as step, random_image

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


def test_fields_go_by_the_names_of_their_opcode():
    assert encode(Opcode.EMBED, token=7, position=9, last_token=1) == encode(Opcode.EMBED, rows=7, beats=9, argmax=1)
    for alias in ALIASES:
        with pytest.raises(ValueError, match="the same bits"):
            encode(alias.opcode, **{alias.name: 1, alias.field: 1})
    with pytest.raises(ValueError, match="no such command field: token"):
        encode(Opcode.ATTEND, token=7)
