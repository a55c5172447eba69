"""What every target's SoC shares: VexRiscv, DRAM settings, the decoder core, and the firmware in ROM."""
import os
import subprocess
import sys
from pathlib import Path

from litex.build.tools import write_to_file

from litex.soc.cores.uart import UART, UARTPHY
from litex.soc.interconnect import wishbone
from litex.soc.integration.builder import Builder
from litex.soc.integration.common import get_mem_data
from litex.soc.integration.soc import SoCRegion
from litex.soc.integration.soc_core import SoCCore

from litedram.core.controller import ControllerSettings

from soc.dram_status import DramStatus
from soc.leds import StatusLeds
from soc.llama2 import Llama2
from soc.memories import litex_styles, place
from soc.open_tools import yosys_roms
from soc.sources import gather, portable_script, relative_names
from soc.spi_flash import SECTOR, SPIFlash
from soc.split_ram import SplitRAM
from soc.unspaced import unspaced_text
from soc.watchdog import TIME_BIT, Watchdog
from llama2_spec.registers import WINDOW_SIZE

ROOT          = Path(__file__).resolve().parent.parent
FIRMWARE      = ROOT/"firmware"
# The smallest board has little block RAM. So ROM and SRAM are as small as the firmware allows, and there is no L2,
# since the CPU uses DRAM only to load a model. The simulator has the same sizes, so the linker refuses firmware that
# outgrows a board wherever it is built.
ROM_SIZE      = 0x8000         # bytes; firmware never runs from DRAM, which belongs to the weight stream
SRAM_SIZE     = 0x5000         # bytes
L2_SIZE       = 0              # bytes
UART_RX_FIFO  = 512            # bytes: at 3 Mbaud they last while the firmware checks a frame and copies it
UART_TX_FIFO  = 16             # bytes: the firmware waits while it is full
WINDOW_ORIGIN = 0x9000_0000    # of the core's Wishbone slave, outside the cached half of the map

# Libraries that the firmware may link; LiteX's others would only cost build time.
PACKAGES = ("libc", "libcompiler_rt", "libbase", "liblitedram")

# SoC ----------------------------------------------------------------------------------------------

class Llama2SoC(SoCCore):
    """A SoCCore without BIOS, to which a target adds its DRAM and then the core."""
    dram_test_rounds = 64    # of 1.5 KiB each, twice: a tenth of a second

    def __init__(self, platform, sys_clk_freq, **kwargs):
        kwargs["integrated_rom_size"]  = kwargs.get("integrated_rom_size") or ROM_SIZE
        kwargs["integrated_sram_size"] = kwargs.get("integrated_sram_size") or SRAM_SIZE
        kwargs["with_ctrl"]            = False    # soc.watchdog takes its place
        kwargs.setdefault("with_timer", False)    # time is the core's cycle counter: see firmware/board.c
        self.l2_size = kwargs.pop("l2_size", L2_SIZE)
        SoCCore.__init__(self, platform, sys_clk_freq, **kwargs)

    def add_ram(self, name, origin, size, contents=(), mode="rwx"):
        """Like LiteX's, but splits a RAM whose ``size`` is no power of two: :mod:`soc.split_ram`."""
        if size & (size - 1) == 0 or self.bus.standard != "wishbone" or self.bus.bursting:
            return SoCCore.add_ram(self, name, origin, size, list(contents), mode)
        bus = wishbone.Interface(data_width=self.bus.data_width, address_width=self.bus.address_width)
        ram = SplitRAM(size, bus, contents, read_only="w" not in mode, name=name)
        self.bus.add_slave(name, ram.bus, region=SoCRegion(origin=origin, size=size, mode=mode))
        self.check_if_exists(name)
        self.add_module(name, ram)

    def build(self, *args, build_dir, **kwargs):
        """Like LiteX's, but gives every memory its style, and makes a folder that can be moved: it holds all sources
        and names no file outside."""
        directory = Path(build_dir).resolve()
        gather(self.platform, directory)
        with litex_styles(), yosys_roms(), relative_names(self.platform, directory), \
                portable_script(self.platform.toolchain):
            return SoCCore.build(self, *args, build_dir=str(directory), **kwargs)

    def add_uart(self, name="uart", uart_name="serial", uart_pads=None, baudrate=115200, **kwargs):
        """Like LiteX's, but a serial line's rate can change (llama2_spec.protocol.Opcode.BAUD), and its receive FIFO is
        deeper."""
        if uart_name != "serial":
            return SoCCore.add_uart(self, name, uart_name, uart_pads, baudrate, **kwargs)
        pads = uart_pads or self.platform.request("serial")
        phy  = UARTPHY(pads, self.sys_clk_freq, baudrate, with_dynamic_baudrate=True)
        self.add_module(f"{name}_phy", phy)
        uart = UART(phy, tx_fifo_depth=UART_TX_FIFO, rx_fifo_depth=UART_RX_FIFO)
        place(uart.rx_fifo, "distributed")    # half a block RAM, which the smallest board lacks
        self.add_module(name, uart)
        self.irq.add(name, use_loc_if_exists=True)

    def add_dram(self, phy, module, size=None):
        """Add ``phy`` and its controller, with the settings that the weight stream was measured with.

        ``size`` (bytes) limits how much of the chip is used.
        """
        self.add_sdram("sdram",
            phy                 = phy,
            module              = module,
            size                = size,
            l2_cache_size       = self.l2_size,
            # Eight refreshes in a row stop a sequential stream less often: 97.4 % of the pins instead of 96.5 %.
            controller_settings = ControllerSettings(refresh_postponing=8),
        )
        self.add_constant("SDRAM_TEST_DISABLE")    # liblitedram's test would overwrite an image that survived a reset
        self.add_constant("DRAM_TEST_ROUNDS", self.dram_test_rounds)    # firmware/dram.c has its own
        self.add_constant("DRAM_BANKS", 2**module.geom_settings.bankbits)
        self.add_constant("DRAM_ROW_BYTES", 2**module.geom_settings.colbits*phy.settings.databits//8)

    def add_dram_status(self):
        """Add registers in which the firmware leaves the outcome of the DRAM's training, so that logic can see it."""
        self.ddrctrl = DramStatus()

    def add_status_leds(self, pads):
        """Drive four LEDs, see :class:`soc.leds.StatusLeds`. Needs the DRAM's status and the core."""
        serial    = self.platform.lookup_request("serial")
        self.leds = StatusLeds(pads, self.sys_clk_freq)
        self.comb += [
            self.leds.dram_done.eq(self.ddrctrl.init_done.storage),
            self.leds.dram_failed.eq(self.ddrctrl.init_error.storage),
            self.leds.busy.eq(self.llama2.core.csr__status__busy),
            self.leds.rx.eq(serial.rx),
            self.leds.tx.eq(serial.tx),
        ]

    def add_model_flash(self, pads, offset):
        """Let the firmware keep a model in the SPI flash from byte ``offset`` on; the bitstream lies before it."""
        if offset % SECTOR or offset <= 0:
            raise ValueError(f"Offset of the model must be a positive multiple of {SECTOR}, not {offset}")
        self.spiflash = SPIFlash(pads, self.sys_clk_freq)
        self.add_constant("FLASH_MODEL_OFFSET", offset)

    def add_llama2(self, core, name="llama2"):
        """Add the decoder core (an Amaranth component with the signature of accel.core.Core)."""
        self.add_module(name, Llama2(self.platform, core, self.sdram.crossbar))
        self.bus.add_slave(name, getattr(self, name).bus,
            region=SoCRegion(origin=WINDOW_ORIGIN, size=WINDOW_SIZE, cached=False))
        self.irq.add(name)
        self.ctrl = Watchdog(getattr(self, name).core.csr__cycles__value[TIME_BIT])
        self.irq.add("ctrl")

# Builder ------------------------------------------------------------------------------------------

class Llama2Builder(Builder):
    """Compiles ``firmware`` instead of the BIOS, with the spec's C header, and fills the ROM with it."""
    def __init__(self, soc, firmware=FIRMWARE, **kwargs):
        Builder.__init__(self, soc, **kwargs)
        self.software_packages  = [(name, path) for name, path in self.software_packages if name in PACKAGES]
        self.software_libraries = [name for name in self.software_libraries if name in PACKAGES]
        self.add_software_package("firmware", str(firmware))
        soc.integrated_rom_initialized = True    # no BIOS
        soc.init_mems = self.init_mems

    def build(self, **kwargs):
        # meson and ninja are in the virtual environment, activated or not.
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return Builder.build(self, **kwargs)

    def _get_variables_contents(self):
        # LiteX's makefiles and ours take these paths apart at spaces.
        packages = [path for _, path in self.software_packages]
        return unspaced_text(Builder._get_variables_contents(self), sys.prefix, ROOT, self.output_dir,
                             self.software_dir,
                             self.include_dir, *packages)

    def _generate_includes(self, **kwargs):
        Builder._generate_includes(self, **kwargs)
        text = subprocess.run([sys.executable, "-m", "llama2_spec.emit_c"], cwd=ROOT, check=True, text=True,
                              stdout=subprocess.PIPE).stdout
        write_to_file(str(Path(self.generated_dir)/"llama2_spec.h"), text)

    def init_mems(self, **kwargs):
        if self.compile_software:
            image = Path(self.software_dir)/"firmware"/"firmware.bin"
            self.soc.init_rom("rom", get_mem_data(str(image), data_width=32, endianness="little"), auto_size=False)
