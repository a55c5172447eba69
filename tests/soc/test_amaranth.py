"""AmaranthInstance shows every port of a signature to Migen, and converts a component once per content."""
import re

import pytest
from amaranth import *
from amaranth.back import verilog
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

import soc.amaranth
from soc.amaranth import AmaranthInstance, verilog_file
from soc.memories import Styles


class Doubler(wiring.Component):
    """Gives the caller twice ``i``, plus ``offset``."""
    def __init__(self, *, offset=0):
        self.offset = offset
        super().__init__({"i": In(signed(7)), "o": Out(signed(9)), "bus": Out(wiring.Signature({"ack": In(1)}))})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(2*self.i + self.offset)
        return m


class Platform:
    def __init__(self):
        self.sources = []

    def add_source(self, path):
        self.sources.append(path)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(soc.amaranth, "CACHE", tmp_path)


def test_ports_keep_name_width_and_sign():
    instance = AmaranthInstance(Platform(), Doubler(), "doubler")
    assert (len(instance.i), instance.i.signed) == (7, True)
    assert (len(instance.o), instance.o.signed) == (9, True)
    assert len(instance.bus__ack) == 1


def test_verilog_names_the_same_ports():
    platform = Platform()
    AmaranthInstance(platform, Doubler(), "doubler")
    text = open(platform.sources[0]).read()
    assert set(re.search(r"module doubler\((.*?)\)", text, re.S)[1].replace(" ", "").split(",")) \
        == {"clk", "rst", "i", "o", "bus__ack"}


def test_converts_once_per_content():
    first = verilog_file(Doubler(), "doubler")
    first.write_text("kept")
    assert verilog_file(Doubler(), "doubler").read_text() == "kept"
    assert verilog_file(Doubler(offset=1), "doubler") != first
    assert verilog_file(Doubler(), "other") != first


def test_verilog_says_where_its_signals_stand_and_nothing_else_is_new():
    platform = Platform()
    AmaranthInstance(platform, Doubler(), "doubler")
    text = open(platform.sources[0]).read()
    line = 1 + next(n for n, line in enumerate(open(__file__)) if "super().__init__" in line)
    assert f"output [8:0] o;    // tests/soc/test_amaranth.py:{line}\n" in text
    plain = verilog.convert(Doubler(), name="doubler", emit_src=False, strip_internal_attrs=True,
                            platform=Styles())
    assert re.sub(r" +// [\w/]+\.py:\d+$", "", text, flags=re.M) == plain
