"""The stub core has the ports of the decoder core, so that what is tested with the one holds for the other."""
from amaranth.hdl import Value

from accel.core import Core
from tests.soc.stub_core import StubCore


def ports(component):
    """But for what the simulator alone looks at, and a reset, which the stub has from its clock domain."""
    return {"__".join(map(str, path)): (member.flow, len(Value.cast(value)))
            for path, member, value in component.signature.flatten(component) if path not in (("watch",), ("reset",))}


def test_same_ports():
    assert ports(StubCore()) == ports(Core())
