"""LiteDRAM's PHY model for the simulator: banks that load a file at start (`+dram=FILE`), and a fast timing checker."""
from pathlib import Path
from unittest import mock

from migen import *

from litedram.phy import model

from soc.sim.lanes import BAD_ROW

HERE = Path(__file__).resolve().parent

# Bank ---------------------------------------------------------------------------------------------

class Bank(Module):
    """Same interface and behaviour as litedram.phy.model.BankModel, with the storage in dram_bank.v."""
    def __init__(self, index, banks, data_width, nrows, ncols, burst_length, nphases, we_granularity, init):
        if data_width != 128 or we_granularity != 8:
            raise ValueError(f"dram_bank.v stores 128-bit words with byte enables, not {data_width}/{we_granularity}")
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
        self.specials += Instance("dram_bank",
            p_BANK      = index,
            p_BANKS     = banks,
            p_DEPTH     = nrows*ncols//word_columns,
            p_ROW_WORDS = ncols//word_columns,
            p_BAD_ROW   = BAD_ROW,
            i_clk       = ClockSignal("sys"),
            i_we        = Mux(active & self.write, ~self.write_mask, 0),
            i_waddr     = Cat(self.write_col[log2_int(word_columns):], row),
            i_wdata     = self.write_data,
            i_re        = active & self.read,
            i_raddr     = Cat(self.read_col[log2_int(word_columns):], row),
            o_rdata     = self.read_data,
        )

# Timing checker -----------------------------------------------------------------------------------

class TimingChecker(model.DFITimingsChecker):
    """Checks the rules of litedram.phy.model.DFITimingsChecker, by dram_timing.v.

    It is stricter than LiteDRAM's: a rule counts from the last such command on the bank, whatever came between;
    refreshes keep their distance from each other; and the refreshes owed are never more than nine.
    """
    RULES = [*model.DFITimingsChecker.RULES, ("REF", "REF", "tRFC")]

    def __init__(self, dfi, nbanks, nphases, timings, refresh_mode, memtype, verbose=False):
        self.prepare_timings(timings, refresh_mode, memtype)
        timings_ps = self.timings
        numbers    = {name: int(code, 2) for name, code in self.CMDS}    # cs_n is 0 in all

        # # #

        delays = {}
        for previous, command, timing in self.RULES:
            at         = 8*numbers[previous] + numbers[command]
            delays[at] = max(delays.get(at, 0), timings_ps[timing])
        phases = [getattr(dfi, f"p{n}") for n in range(nphases)]
        self.specials += Instance("dram_timing",
            p_BANK_BITS = log2_int(nbanks),
            p_PHASES    = nphases,
            p_TCK_PS    = timings_ps["tCK"],
            p_TRRD_PS   = timings_ps["tRRD"],
            p_TFAW_PS   = timings_ps["tFAW"],
            p_TREFI_PS  = timings_ps["tREFI"],
            p_DELAYS_PS = Instance.PreformattedParam(f"2048'h{sum(delay << 32*at for at, delay in delays.items()):x}"),
            i_clk       = ClockSignal("sys"),
            i_cke       = phases[0].cke,
            i_cs_n      = Cat(phase.cs_n for phase in phases),
            i_ras_n     = Cat(phase.ras_n for phase in phases),
            i_cas_n     = Cat(phase.cas_n for phase in phases),
            i_we_n      = Cat(phase.we_n for phase in phases),
            i_a10       = Cat(phase.address[10] for phase in phases),
            i_bank      = Cat(phase.bank for phase in phases),
        )

# PHY ----------------------------------------------------------------------------------------------

def create_phy(platform, module, clk_freq):
    """A 16-bit SDRAMPHYModel with these banks and this checker, for which LiteDRAM has no parameters."""
    banks = 2**module.geom_settings.bankbits
    count = iter(range(banks))
    with mock.patch.multiple(model, BankModel=lambda **kwargs: Bank(next(count), banks, **kwargs),
                             DFITimingsChecker=TimingChecker):
        phy = model.SDRAMPHYModel(module=module, data_width=16, clk_freq=clk_freq, verbosity=model.SDRAM_VERBOSE_STD)
    for name in ("dram_bank.v", "dram_timing.v"):
        platform.add_source(str(HERE/name))
    return phy
