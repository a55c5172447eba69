#!/usr/bin/env python3
"""The SoC on a LambdaConcept ECPIX-5, by open tools alone: ``python targets/ecpix5.py --build --load``."""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT/"spec")]

from migen import *
from migen.genlib.resetsync import AsyncResetSynchronizer

from litex.gen import *

from litex_boards.platforms import lambdaconcept_ecpix5

from litex.build.openfpgaloader import OpenFPGALoader
from litex.build.yosys_wrapper import YosysWrapper

from litex.soc.cores.clock import ECP5PLL

from litedram.modules import MT41K256M16, _SpeedgradeTimings
from litedram.phy import ECP5DDRPHY

from soc import board, configuration, open_tools
from soc.base import Llama2SoC
from soc.clocks import Clocks
from soc.netlist import command

SYS_CLK_FREQ = int(75e6)
MODEL_OFFSET = 2 << 20         # bytes of flash that the bitstream takes
DRAM_SIZE    = 256 << 20    # bytes: what the core's 24-bit beat addresses reach, of the chip's 512 MiB
SEED         = 1            # of the placement

TOOLS = (["yosys", "nextpnr-ecp5", "ecppack"], "run `make setup`, which installs them from PyPI")

# DRAM ---------------------------------------------------------------------------------------------

class DRAM(MT41K256M16):
    # LiteDRAM counts this chip's tRFC in clocks of its fastest grade. Ref: Micron 4Gb DDR3L: 260 ns.
    speedgrade_timings = {
        "default": _SpeedgradeTimings(tRP=13.75, tRCD=13.75, tWR=15, tRFC=(None, 260), tFAW=(None, 50), tRAS=37.5),
    }

# Clocks -------------------------------------------------------------------------------------------

INIT_CLK_FREQ = 25e6

def clocks():
    """Describes the clocks that the generator can make."""
    return Clocks(
        create_pll = ECP5PLL,
        oscillator = 100e6,
        multiples  = (2,),
        fixed      = (INIT_CLK_FREQ,),
        lowest     = 48e6,     # LiteX's slowest boards with this PHY
        highest    = 200e6,    # Ref: Lattice FPGA-DS-02012, DDR3 at speed grade 8: 800 Mb/s
        bounds     = "its DRAM runs at 192 to 800 Mb/s, four times this",
    )

# CRG ----------------------------------------------------------------------------------------------

class _CRG(LiteXModule):
    def __init__(self, platform, sys_clk_freq):
        self.rst        = Signal()
        self.cd_init    = ClockDomain()
        self.cd_por     = ClockDomain(reset_less=True)
        self.cd_sys     = ClockDomain()
        self.cd_sys2x   = ClockDomain(reset_less=True)
        self.cd_sys2x_i = ClockDomain(reset_less=True)
        self.stop       = Signal()    # from the DRAM's PHY, while it sets up its clocks
        self.reset      = Signal()

        # # #

        # Clk / Rst.
        clk100 = platform.request("clk100")
        rst_n  = platform.request("rst_n")

        # Power on reset.
        por_count = Signal(16, reset=2**16 - 1)
        self.comb += self.cd_por.clk.eq(clk100)
        self.sync.por += If(por_count != 0, por_count.eq(por_count - 1))

        # PLL.
        self.pll = pll = ECP5PLL()
        self.comb += pll.reset.eq((por_count != 0) | ~rst_n | self.rst)
        pll.register_clkin(clk100, 100e6)
        pll.create_clkout(self.cd_sys2x_i, 2*sys_clk_freq)
        pll.create_clkout(self.cd_init,    INIT_CLK_FREQ)
        self.specials += [
            Instance("ECLKSYNCB",
                i_ECLKI = self.cd_sys2x_i.clk,
                i_STOP  = self.stop,
                o_ECLKO = self.cd_sys2x.clk),
            Instance("CLKDIVF",
                p_DIV     = "2.0",
                i_ALIGNWD = 0,
                i_CLKI    = self.cd_sys2x.clk,
                i_RST     = self.reset,
                o_CDIVX   = self.cd_sys.clk),
            AsyncResetSynchronizer(self.cd_sys, ~pll.locked | self.reset),
        ]

# BaseSoC ------------------------------------------------------------------------------------------

class BaseSoC(Llama2SoC):
    def __init__(self, core, device="85F", toolchain="trellis", sys_clk_freq=SYS_CLK_FREQ,
        with_spi_flash = False,
        **kwargs):
        platform = lambdaconcept_ecpix5.Platform(device=device, toolchain=toolchain)
        platform.toolchain._pnr_opts += f"--report report.json {' '.join(open_tools.PLACE_AND_ROUTE)} "
        netlist = "{output_name}.{synth_fmt}"
        platform.toolchain._yosys_template = [
            *(step for line in YosysWrapper._default_template
              for step in (open_tools.synth_ecp5("{synth_opts} -top {build_name}") if line.startswith("synth_")
                           else [line])),
            *(command(module, netlist) for module in ("soc.multipliers", "soc.floorplan")),
        ]

        # CRG --------------------------------------------------------------------------------------
        self.crg = _CRG(platform, sys_clk_freq)

        # SoCCore ----------------------------------------------------------------------------------
        kwargs = {"ident": f"LLaMA-2 decoder (ECPIX-5 {device})", **kwargs}
        Llama2SoC.__init__(self, platform, sys_clk_freq, **kwargs)

        # DDR3 SDRAM -------------------------------------------------------------------------------
        self.ddrphy = ECP5DDRPHY(platform.request("ddram"), sys_clk_freq=sys_clk_freq)
        self.comb += [
            self.crg.stop.eq(self.ddrphy.init.stop),
            self.crg.reset.eq(self.ddrphy.init.reset),
        ]
        self.add_dram(self.ddrphy, DRAM(sys_clk_freq, "1:2"), size=DRAM_SIZE)
        self.add_dram_status()

        # Decoder ----------------------------------------------------------------------------------
        self.add_llama2(core)

        # SPI Flash --------------------------------------------------------------------------------
        if with_spi_flash:
            self.add_model_flash(platform.request("spiflash"), MODEL_OFFSET)

        # Leds -------------------------------------------------------------------------------------
        green = Signal(4)
        self.add_status_leds(green)
        for i in range(4):
            led = platform.request("rgb_led", i)
            self.comb += [led.r.eq(1), led.g.eq(~green[i]), led.b.eq(1)]    # lit by 0

# Build --------------------------------------------------------------------------------------------

def create_parser():
    parser = board.create_parser("targets/ecpix5.py", lambdaconcept_ecpix5.Platform, ["trellis"], SYS_CLK_FREQ,
                                 "LLaMA-2 decoder SoC on an ECPIX-5.",
                                 yosys_abc9=True, nextpnr_timingstrict=True, nextpnr_seed=SEED, ecppack_compress=True)
    parser.add_target_argument("--device", default="85F", choices=("85F",),
                               help="ECP5 device; the 45F has too few multipliers.")
    parser.add_target_argument("--with-spi-flash", action="store_true",
                               help="A model in the SPI flash: llama2-host load --flash.")
    return parser


def create_core():
    """The one configuration on multipliers of 18 x 18 bits."""
    return configuration.create_core(multiplier_bits=18)


def main():
    parser = create_parser()
    args   = parser.parse_args()
    open_tools.add_to_path()
    def create_build():
        soc = BaseSoC(create_core(), args.device, args.toolchain, args.sys_clk_freq, args.with_spi_flash,
                      **parser.soc_argdict)
        return board.Build(parser, args, soc, ROOT/"build"/f"ecpix5-{args.device.lower()}")
    return board.execute(parser, args, clocks(), create_build, lambda: OpenFPGALoader("ecpix5"), *TOOLS)

if __name__ == "__main__":
    sys.exit(main())
