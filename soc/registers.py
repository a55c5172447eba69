"""Makes LiteX CSRs from the rows of llama2_spec.registers, and joins their fields to the core's ``csr__*`` ports."""
from litex.soc.interconnect.csr import *

def csr(register):
    """The CSR of one :class:`llama2_spec.registers.Register`."""
    cls = {"rw": CSRStorage, "ro": CSRStatus}[register.access]
    return cls(name=register.name, description=register.doc, fields=[
        CSRField(field.name, size=field.size, pulse=field.pulse, description=field.doc)
        for field in register.fields])


def connect(register, csr, core):
    """Statements that wire ``csr`` to the ``csr__<register>__<field>`` signals of ``core``."""
    for field in register.fields:
        bits = getattr(csr.fields, field.name)
        port = getattr(core, f"csr__{register.name}__{field.name}")
        yield port.eq(bits) if register.access == "rw" else bits.eq(port)
