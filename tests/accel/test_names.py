"""Signals keep their names on the way to Verilog and waveforms."""
import re

from amaranth.back import rtlil

from accel.core import Core


def test_every_signal_has_a_name():
    """``a, b = Signal(), Signal()`` leaves both without one: Amaranth reads it where a single one is assigned."""
    core = Core(columns=2, max_dim=128, max_hidden_dim=128, max_kv_dim=128, max_heads=8)
    text = rtlil.convert(core, emit_src=True)
    nameless = re.findall(r'attribute \\src "([^"]*)"\n(?:  attribute .*\n)*  wire (?:width \d+ )?\\\$signal', text)
    assert len(re.findall(r"^  wire .*\\\w", text, re.M)) > 1000
    assert not nameless
