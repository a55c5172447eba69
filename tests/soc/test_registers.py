"""The CSR bank is what llama2_spec.registers says: names, field offsets, sizes and access."""
import pytest
from litex.soc.interconnect.csr import CSRStatus, CSRStorage

from soc.registers import csr
from llama2_spec.registers import REGISTERS


@pytest.mark.parametrize("register", REGISTERS, ids=lambda register: register.name)
def test_register_matches_spec(register):
    made = csr(register)
    assert made.name == register.name
    assert isinstance(made, {"rw": CSRStorage, "ro": CSRStatus}[register.access])
    offset = 0
    for field, bits in zip(register.fields, made.fields.fields, strict=True):
        assert (bits.name, bits.offset, bits.size, bits.pulse) == (field.name, offset, field.size, field.pulse)
        offset += field.size
    assert made.size == offset <= 32
