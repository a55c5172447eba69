"""LiteDRAM's native ports as Amaranth signatures: 128-bit beats, addresses in beats."""
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class NativeRead(wiring.Signature):
    """The read half: data comes in order and cannot be stalled."""
    def __init__(self, addr_width, data_width):
        super().__init__({"cmd_valid": Out(1), "cmd_ready": In(1), "cmd_addr": Out(addr_width),
                          "rdata_valid": In(1), "rdata_data": In(data_width)})


class NativeWrite(wiring.Signature):
    """The write half: data is fetched some cycles after its command, in order, and must be there by then."""
    def __init__(self, addr_width, data_width):
        super().__init__({"cmd_valid": Out(1), "cmd_ready": In(1), "cmd_addr": Out(addr_width),
                          "wdata_valid": Out(1), "wdata_ready": In(1), "wdata_data": Out(data_width)})
