"""LiteDRAM's PHY model for the simulator: its timing checker on, its banks in dram_bank.v (`+dram=FILE`)."""
from pathlib import Path

from migen import *

from litedram.phy import model

# Bank ---------------------------------------------------------------------------------------------

class Bank(Module):
    """Same interface and behaviour as litedram.phy.model.BankModel, with the storage in Verilog."""
    def __init__(self, index, banks, data_width, nrows, ncols, burst_length, nphases):
        self.activate     = Signal()
        self.activate_row = Signal(max=nrows)
        self.precharge    = Signal()
        self.write        = Signal()
        self.write_col    = Signal(max=ncols)
        self.write_data   = Signal(data_width)
        self.write_mask   = Signal(data_width//8)
        self.read         = Signal()
        self.read_col     = Signal(max=ncols)
        self.read_data    = Signal(data_width)

        # # #

        active = Signal()
        row    = Signal(max=nrows)
        self.sync += If(self.precharge,
            active.eq(0),
        ).Elif(self.activate,
            active.eq(1),
            row.eq(self.activate_row),
        )

        word_columns = burst_length*nphases
        rdata        = Signal(data_width)
        self.specials += Instance("dram_bank",
            p_BANK      = index,
            p_BANKS     = banks,
            p_DEPTH     = nrows*ncols//word_columns,
            p_ROW_WORDS = ncols//word_columns,
            i_clk       = ClockSignal("sys"),
            i_we        = Mux(active & self.write, ~self.write_mask, 0),
            i_waddr     = Cat(self.write_col[log2_int(word_columns):], row),
            i_wdata     = self.write_data,
            i_raddr     = Cat(self.read_col[log2_int(word_columns):], row),
            o_rdata     = rdata,
        )
        self.comb += If(active & self.read, self.read_data.eq(rdata))

# PHY ----------------------------------------------------------------------------------------------

def create_phy(platform, module, clk_freq, verbosity=model.SDRAM_VERBOSE_STD):
    """A 16-bit SDRAMPHYModel whose banks read their contents from a file when the simulation starts."""
    banks = 2**module.geom_settings.bankbits
    count = iter(range(banks))

    def create_bank(data_width, nrows, ncols, burst_length, nphases, we_granularity, init):
        if data_width != 128 or we_granularity != 8:
            raise ValueError(f"dram_bank.v stores 128-bit words with byte enables, not {data_width}/{we_granularity}")
        return Bank(next(count), banks, data_width, nrows, ncols, burst_length, nphases)

    stock, model.BankModel = model.BankModel, create_bank    # LiteDRAM has no parameter for it
    try:
        phy = model.SDRAMPHYModel(module=module, data_width=16, clk_freq=clk_freq, verbosity=verbosity)
    finally:
        model.BankModel = stock
    platform.add_source(str(Path(__file__).with_name("dram_bank.v")))
    return phy
