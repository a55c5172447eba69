"""LiteDRAM's native ports as Amaranth signatures: 128-bit beats, addresses in beats."""
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class NativeRead(wiring.Signature):
    """The read half: data comes in order and cannot be stalled.

    Members
    -------
    cmd_valid : Out(1)
        A read is asked for. The segment reader may take it back while it waits, for an older block at the other port,
        and asks for the same address again (docs/proofs.md).
    cmd_ready : In(1)
        It is accepted.
    cmd_addr : Out(addr_width)
        In beats; valid with ``cmd_valid``.
    rdata_valid : In(1)
        A beat comes, some cycles later, in the order of the commands; it cannot be refused.
    rdata_data : In(data_width)
        Valid with ``rdata_valid``.
    """
    def __init__(self, addr_width, data_width):
        super().__init__({"cmd_valid": Out(1), "cmd_ready": In(1), "cmd_addr": Out(addr_width),
                          "rdata_valid": In(1), "rdata_data": In(data_width)})


class NativeWrite(wiring.Signature):
    """The write half: data is fetched some cycles after its command, in order, and must be there by then.

    Members
    -------
    cmd_valid : Out(1)
        A write is asked for; held until ``cmd_ready``.
    cmd_ready : In(1)
        It is accepted.
    cmd_addr : Out(addr_width)
        In beats; valid with ``cmd_valid``.
    wdata_valid : Out(1)
        The beat of the oldest command is there.
    wdata_ready : In(1)
        It is taken; it must be there by then.
    wdata_data : Out(data_width)
        Valid with ``wdata_valid``.
    """
    def __init__(self, addr_width, data_width):
        super().__init__({"cmd_valid": Out(1), "cmd_ready": In(1), "cmd_addr": Out(addr_width),
                          "wdata_valid": Out(1), "wdata_ready": In(1), "wdata_data": Out(data_width)})
