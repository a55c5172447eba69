"""The decoder core as a LiteX peripheral: CSRs, interrupt, Wishbone slave and LiteDRAM native ports."""
from migen import *

from litex.gen import *

from litex.soc.interconnect import stream, wishbone
from litex.soc.interconnect.csr_eventmanager import *

from soc import registers
from soc.amaranth import AmaranthInstance
from llama2_spec.registers import REGISTERS

STREAM_PORTS = ("read0", "read1")    # the weight stream's
DATA_WIDTH = 128    # bits: one beat of the weight stream

class DramWidthError(ValueError):
    """Raised where the DRAM's controller is wider than the core's ports; the message says what to do, in one line."""


def check_width(controller_bits):
    """Refuse a controller whose words are wider than a beat: LiteDRAM's converter to it loses the last beat of an odd
    number."""
    if controller_bits > DATA_WIDTH:
        raise DramWidthError(f"the DRAM controller's words have {controller_bits} bits, the core's ports {DATA_WIDTH}, "
                             "and LiteDRAM's converter between them loses beats: use fewer of the board's DRAM chips, "
                             "or a PHY with fewer phases")

# Llama2 -------------------------------------------------------------------------------------------

class Llama2(LiteXModule):
    """Decoder core with its ports on ``crossbar`` (LiteDRAM).

    ``bus`` is a Wishbone slave laid out as :class:`llama2_spec.registers.Window`; the CSRs are the rows of
    :data:`llama2_spec.registers.REGISTERS` and the event manager ``ev``, whose source ``result`` is high while a
    result waits and ``control.irq_enable`` is set.
    """
    def __init__(self, platform, core, crossbar):
        self.bus = bus = wishbone.Interface(data_width=32, address_width=32, addressing="word")
        self.ev  = EventManager()
        self.ev.result = EventSourceLevel(description="A result waits in the result FIFO.")
        self.ev.finalize()

        # # #

        # Core -------------------------------------------------------------------------------------
        self.core = core = AmaranthInstance(platform, core, "llama2_core")

        # Registers --------------------------------------------------------------------------------
        for register in REGISTERS:
            csr = registers.csr(register)
            setattr(self, register.name, csr)
            self.comb += registers.connect(register, csr, core)
        self.comb += self.ev.result.trigger.eq(core.irq)

        # Wishbone ---------------------------------------------------------------------------------
        self.comb += [
            core.bus__cyc.eq(bus.cyc),
            core.bus__stb.eq(bus.stb),
            core.bus__we.eq(bus.we),
            core.bus__adr.eq(bus.adr),
            core.bus__dat_w.eq(bus.dat_w),
            core.bus__sel.eq(bus.sel),
            bus.dat_r.eq(core.bus__dat_r),
            bus.ack.eq(core.bus__ack),
        ]

        # DRAM -------------------------------------------------------------------------------------
        check_width(crossbar.controller.data_width)
        stream_ports = {name: crossbar.get_port(mode="read", data_width=DATA_WIDTH) for name in STREAM_PORTS}
        for name, port in stream_ports.items():
            self.connect_command(name, port)
            self.connect_reads(name, port)
            # The read ports never write. Sharing the write port's data makes the crossbar's multiplexer two inputs wide
            # instead of four.
            self.comb += port.wdata.data.eq(core.write__wdata_data)
        # One DRAM, one data bus: a multiplexer only where a converter gave each port a register of its own.
        self.comb += If(stream_ports["read1"].rdata.valid, core.read0__rdata_data.eq(stream_ports["read1"].rdata.data))

        # An embedding is read once a token and K/V rows are written once a layer: they share a port. With the CPU's it
        # is the fourth, and a look-up table selects one of four.
        port = crossbar.get_port(mode="both", data_width=DATA_WIDTH)
        self.connect_command("write", port, reads="embed")
        self.connect_reads("embed", port)
        self.comb += [
            port.wdata.valid.eq(core.write__wdata_valid),
            core.write__wdata_ready.eq(port.wdata.ready),
            port.wdata.data.eq(core.write__wdata_data),
            port.wdata.we.eq(2**(DATA_WIDTH//8) - 1),
        ]

    def connect_reads(self, name, port):
        """Connect the read data of a LiteDRAM native port to the core's port ``name``."""
        self.comb += [
            port.rdata.ready.eq(1),    # requested data cannot be stalled
            getattr(self.core, f"{name}__rdata_valid").eq(port.rdata.valid),
            getattr(self.core, f"{name}__rdata_data").eq(port.rdata.data),
        ]

    def connect_command(self, name, port, reads=None):
        """Join the command channel of the core's port ``name`` to a LiteDRAM native port.

        With ``reads``, ``name`` writes, and the reads of the core's port ``reads`` take turns with its writes, which go
        first. Registers lie between: the crossbar's ready arrives late, since it depends on the state of all banks, and
        the crossbar's multiplexers start from these registers.
        """
        layout = [("addr", len(port.cmd.addr)), ("we", 1)]
        ready, valid = stream.PipeReady(layout), stream.PipeValid(layout)
        self.add_module(f"{name}_ready", ready)
        self.add_module(f"{name}_valid", valid)
        asked = getattr(self.core, f"{name}__cmd_valid")
        self.comb += [
            ready.sink.valid.eq(asked),
            getattr(self.core, f"{name}__cmd_ready").eq(ready.sink.ready),
            ready.sink.addr.eq(getattr(self.core, f"{name}__cmd_addr")),
            ready.sink.we.eq(reads is not None),
            ready.source.connect(valid.sink),
            port.cmd.valid.eq(valid.source.valid),
            valid.source.ready.eq(port.cmd.ready),
            port.cmd.addr.eq(valid.source.addr),
            port.cmd.we.eq(valid.source.we),
        ]
        if reads is not None:
            self.comb += [
                # A command is taken in the cycle in which it is offered to a ready register: none changes while it
                # waits.
                getattr(self.core, f"{reads}__cmd_ready").eq(ready.sink.ready & ~asked),
                If(~asked,
                    ready.sink.valid.eq(getattr(self.core, f"{reads}__cmd_valid")),
                    ready.sink.addr.eq(getattr(self.core, f"{reads}__cmd_addr")),
                    ready.sink.we.eq(0),
                ),
            ]
