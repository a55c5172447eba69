#!/usr/bin/env python3
"""The SoC on a Digilent Arty A7: ``python targets/arty.py --build --load``."""
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT/"spec")]

from migen import *

from litex.gen import *

from litex_boards.platforms import digilent_arty

from litex.build.openfpgaloader import OpenFPGALoader

from litex.soc.cores.clock import S7PLL, S7IDELAYCTRL

from litedram.modules import MT41K128M16
from litedram.phy import s7ddrphy

from soc import board, configuration
from soc.base import Llama2SoC
from soc.clocks import Clocks

SYS_CLK_FREQ = int(100e6)
# Bytes of flash that the bitstream takes, in whole sectors. Ref: Xilinx UG470, bitstream length: 2,192,012 and
# 3,825,788 bytes.
MODEL_OFFSET = {"a7-35": 0x22_0000, "a7-100": 0x3b_0000}
BOARDS       = {"a7-35": "arty_a7_35t", "a7-100": "arty_a7_100t"}    # openFPGALoader's names

TOOLS = {
    "vivado":  (["vivado"], "install Vivado ML Standard, which is free for this chip, and put it on PATH or set "
                            "LITEX_ENV_VIVADO"),
    "openxc7": (["yosys", "nextpnr-xilinx", "fasm2frames", "xc7frames2bit"],
                "install the openXC7 toolchain, put it on PATH and set CHIPDB and PRJXRAY_DB_DIR"),
}

# Clocks -------------------------------------------------------------------------------------------

IDELAY_CLK_FREQ = 200e6    # reference of the delays at the DRAM's pins
ETH_CLK_FREQ    = 25e6

def clocks(with_ethernet=False):
    """Describes the clocks that the generator can make."""
    return Clocks(
        create_pll = lambda: S7PLL(speedgrade=-1),
        oscillator = 100e6,
        multiples  = (1, 4, 4),
        fixed      = (IDELAY_CLK_FREQ, *([ETH_CLK_FREQ] if with_ethernet else [])),
        lowest     = 50e6,     # bits of 2.5 ns: what the delays reach across
        highest    = 100e6,    # Ref: AMD DS181, DDR3 at speed grade -1: 800 Mb/s
        bounds     = "its DRAM runs at 400 to 800 Mb/s, eight times this",
    )

# CRG ----------------------------------------------------------------------------------------------

class _CRG(LiteXModule):
    def __init__(self, platform, sys_clk_freq, with_ethernet=False):
        self.rst          = Signal()
        self.cd_sys       = ClockDomain()
        self.cd_sys4x     = ClockDomain()
        self.cd_sys4x_dqs = ClockDomain()
        self.cd_idelay    = ClockDomain()

        # # #

        # PLL.
        self.pll = pll = S7PLL(speedgrade=-1)
        self.comb += pll.reset.eq(~platform.request("cpu_reset") | self.rst)
        pll.register_clkin(platform.request("clk100"), 100e6)
        pll.create_clkout(self.cd_sys,       sys_clk_freq)
        pll.create_clkout(self.cd_sys4x,     4*sys_clk_freq)
        pll.create_clkout(self.cd_sys4x_dqs, 4*sys_clk_freq, phase=90)
        pll.create_clkout(self.cd_idelay,    IDELAY_CLK_FREQ)
        platform.add_false_path_constraints(self.cd_sys.clk, pll.clkin)    # the SoC's own reset

        # The Ethernet PHY's reference.
        if with_ethernet:
            self.cd_eth = ClockDomain()
            pll.create_clkout(self.cd_eth, ETH_CLK_FREQ)
            self.comb += platform.request("eth_ref_clk").eq(self.cd_eth.clk)

        # IdelayCtrl.
        self.idelayctrl = S7IDELAYCTRL(self.cd_idelay)

# Core ---------------------------------------------------------------------------------------------

#: What a variant's core has otherwise than soc.configuration.
CORES = {
    # There is room: four conversations, sampled ones too, share a pass, and attention follows the memory up to four
    # heads a K/V head.
    "a7-100": {"columns": 4, "candidate_sets": 4, "attention_lanes": 16},
}


def create_core(variant="a7-35"):
    return configuration.create_core(**CORES.get(variant, {}))

# BaseSoC ------------------------------------------------------------------------------------------

class BaseSoC(Llama2SoC):
    def __init__(self, core, variant="a7-35", toolchain="vivado", sys_clk_freq=SYS_CLK_FREQ,
        with_etherbone = False,
        eth_ip         = "192.168.1.50",
        with_spi_flash = False,
        **kwargs):
        platform = digilent_arty.Platform(variant=variant, toolchain=toolchain)

        # CRG --------------------------------------------------------------------------------------
        self.crg = _CRG(platform, sys_clk_freq, with_ethernet=with_etherbone)

        # SoCCore ----------------------------------------------------------------------------------
        kwargs = {"ident": f"LLaMA-2 decoder (Arty {variant.upper()})", **kwargs}
        Llama2SoC.__init__(self, platform, sys_clk_freq, **kwargs)

        # DDR3 SDRAM -------------------------------------------------------------------------------
        self.ddrphy = s7ddrphy.A7DDRPHY(platform.request("ddram"),
            memtype      = "DDR3",
            nphases      = 4,
            sys_clk_freq = sys_clk_freq)
        # tRFC of the datasheet, 160 ns
        self.add_dram(self.ddrphy, MT41K128M16(sys_clk_freq, "1:4", speedgrade="800"))
        self.add_dram_status()

        # Decoder ----------------------------------------------------------------------------------
        self.add_llama2(core)

        # SPI Flash --------------------------------------------------------------------------------
        if with_spi_flash:
            self.add_model_flash(platform.request("spiflash"), MODEL_OFFSET[variant])

        # Etherbone --------------------------------------------------------------------------------
        if with_etherbone:
            from liteeth.phy.mii import LiteEthPHYMII
            self.ethphy = LiteEthPHYMII(platform.request("eth_clocks"), platform.request("eth"))
            self.add_etherbone(phy=self.ethphy, ip_address=eth_ip)

        # Leds -------------------------------------------------------------------------------------
        self.add_status_leds(platform.request_all("user_led"))

# Build --------------------------------------------------------------------------------------------

def create_parser():
    parser = board.create_parser("targets/arty.py", digilent_arty.Platform, TOOLS, SYS_CLK_FREQ,
                                 "LLaMA-2 decoder SoC on an Arty A7.")
    parser.add_target_argument("--variant",        default="a7-35", choices=tuple(BOARDS), help="Board variant.")
    parser.add_target_argument("--with-etherbone", action="store_true",
                               help="Reach the SoC's bus over Ethernet (litex_server), for debugging.")
    parser.add_target_argument("--with-spi-flash", action="store_true",
                               help="A model in the SPI flash: llama2-host load --flash.")
    parser.add_target_argument("--eth-ip",         default="192.168.1.50", help="Address of Etherbone.")
    return parser


def main():
    parser = create_parser()
    args   = parser.parse_args()
    if args.with_etherbone and args.variant == "a7-35":
        parser.error("--with-etherbone does not fit beside the decoder: use --variant a7-100")
    tools, install = TOOLS[args.toolchain]
    if args.toolchain == "vivado" and os.getenv("LITEX_ENV_VIVADO"):
        tools = []    # the script sources its settings
    def create_build():
        soc = BaseSoC(create_core(args.variant), args.variant, args.toolchain, args.sys_clk_freq,
            with_etherbone = args.with_etherbone,
            eth_ip         = args.eth_ip,
            with_spi_flash = args.with_spi_flash,
            **parser.soc_argdict)
        return board.Build(parser, args, soc, ROOT/"build"/f"arty-{args.variant}")
    return board.execute(parser, args, clocks(args.with_etherbone), create_build,
                         lambda: OpenFPGALoader(BOARDS[args.variant]),
        tools, install,
        needs_tools = args.toolchain == "openxc7")    # LiteX looks for its databases before it writes the script

if __name__ == "__main__":
    sys.exit(main())
