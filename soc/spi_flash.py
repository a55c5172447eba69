"""The flash that holds the bitstream and may hold a model, as a peripheral of the CPU: an SPI master, registers
``spiflash_spi_*``."""
from migen import *

from litex.gen import *

from litex.soc.cores.spi import SPIMaster

SPI_CLK_FREQ = 25e6    # within what every such chip takes for the plain read command
TRANSFER     = 32      # bits at most; commands are several transfers, while the CPU holds the chip selected
SECTOR       = 65536   # bytes, as firmware/flash.h erases them

# SPIFlash -----------------------------------------------------------------------------------------

class SPIFlash(LiteXModule):
    """``pads`` with ``clk``; without it, the clock leaves through an ECP5's configuration pin.

    On an Arty the chip's clock is wired to a user pin too: driving the configuration pin would fight with it.
    """
    def __init__(self, pads, sys_clk_freq):
        self.spi = SPIMaster(None, TRANSFER, sys_clk_freq, SPI_CLK_FREQ)

        # # #

        self.comb += [
            pads.cs_n.eq(self.spi.pads.cs_n),
            pads.mosi.eq(self.spi.pads.mosi),
            self.spi.pads.miso.eq(pads.miso),
        ]
        for name in ("wp", "hold"):    # active low, and not used
            if hasattr(pads, name):
                self.comb += getattr(pads, name).eq(1)
        if hasattr(pads, "clk"):
            self.comb += pads.clk.eq(self.spi.pads.clk)
        else:
            self.specials += Instance("USRMCLK", i_USRMCLKI=self.spi.pads.clk, i_USRMCLKTS=0)
