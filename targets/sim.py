#!/usr/bin/env python3
"""The SoC in Verilator, with an Arty's DRAM: ``python targets/sim.py --build --run`` prints the port of its UART."""
import inspect
import signal
import sys
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT/"spec")]

from migen import *

from litex.soc.integration.soc_core import *    # first: litex.build.parser needs it loaded

from litex.build.generic_platform import *
from litex.build.io import CRG
from litex.build.parser import LiteXArgumentParser
from litex.build.sim import SimPlatform
from litex.build.sim.config import SimConfig

from litedram.modules import MT41K128M16

from accel.attention.lanes import check_lanes
from llama2_spec.simulation import DRAM_FAULTS
from soc import configuration
from soc.amaranth import sources_digest
from soc.base import FIRMWARE, L2_SIZE, ROM_SIZE, SRAM_SIZE, Llama2Builder, Llama2SoC
from soc.sim import compile as sim_compile
from soc.sim import tools
from soc.sim.dram import create_phy
from soc.sim.lanes import LanePHY
from soc.sim.progress import BuildProgress
from soc.sim.simulator import Simulator, SimulatorError
from soc.sim.stream_watch import StreamWatch
from soc.sim.trace import Moment, Trace, recorded_cycles
from soc.sim.training import train

CACHE        = ROOT/"build"/"vsim"
SYS_CLK_FREQ = int(100e6)    # an Arty's; CPU, DRAM timings and simulated clock agree
MODEL_OFFSET = 0x22_0000       # bytes of flash that an Arty A7-35T's bitstream takes
DEFAULT_TRACE = Path("trace.fst")    # in the build's folder
COLUMNS      = configuration.PARAMETERS["columns"]
#: What a build may have otherwise than soc.configuration, beside the columns: a parameter of the core each, and its
#: short name in the build's folder.
VARIANTS     = {"attention_lanes": "lanes", "softmax_pipes": "pipes", "max_dim": "dim", "candidate_sets": "sets"}
USUAL        = {name: configuration.PARAMETERS[name] for name in VARIANTS}

# IOs ----------------------------------------------------------------------------------------------

_io = [
    ("sys_clk", 0, Pins(1)),
    ("sys_rst", 0, Pins(1)),
]

_serial_bytes = [
    ("serial", 0,
        Subsignal("source_valid", Pins(1)),
        Subsignal("source_ready", Pins(1)),
        Subsignal("source_data",  Pins(8)),
        Subsignal("sink_valid",   Pins(1)),
        Subsignal("sink_ready",   Pins(1)),
        Subsignal("sink_data",    Pins(8)),
    ),
]

_board_pins = [
    ("serial", 0,
        Subsignal("tx", Pins(1)),
        Subsignal("rx", Pins(1)),
    ),
    ("spiflash", 0,
        Subsignal("cs_n", Pins(1)),
        Subsignal("clk",  Pins(1)),
        Subsignal("mosi", Pins(1)),
        Subsignal("miso", Pins(1)),
    ),
]

# Platform -----------------------------------------------------------------------------------------

class Platform(SimPlatform):
    def __init__(self, with_board_pins=False):
        SimPlatform.__init__(self, "SIM", _io + (_board_pins if with_board_pins else _serial_bytes))
        self.toolchain.build = self.generate    # soc.sim.compile does the rest

    def generate(self, platform, fragment, **kwargs):
        stock = type(self.toolchain).build
        return stock(self.toolchain, platform, fragment, **{**kwargs, "run": False})

    @classmethod
    def fill_args(cls, toolchain, parser):
        pass    # LiteX's options for its own simulation Makefile, which is not used

    @classmethod
    def get_argdict(cls, toolchain, args):
        return {}

# BaseSoC ------------------------------------------------------------------------------------------

class BaseSoC(Llama2SoC):
    dram_test_rounds = 1    # simulated DRAM has no marginal bits; starting takes half a second less

    def __init__(self, core, with_board_pins=False, lanes=True, **kwargs):
        """``lanes``: the DRAM has byte lanes to train; the project's own firmware can set them without training."""
        platform = Platform(with_board_pins)

        # CRG --------------------------------------------------------------------------------------
        reset    = Signal()
        self.crg = CRG(platform.request("sys_clk"), reset)
        self.crg.rst = reset

        # SoCCore ----------------------------------------------------------------------------------
        kwargs = {"ident": "LLaMA-2 decoder (simulation)", **kwargs,
                  "uart_name": "serial" if with_board_pins else "sim"}
        Llama2SoC.__init__(self, platform, SYS_CLK_FREQ, **kwargs)

        # DDR3 SDRAM -------------------------------------------------------------------------------
        module      = MT41K128M16(SYS_CLK_FREQ, "1:4", speedgrade="800")    # tRFC of the datasheet, 160 ns
        phy         = create_phy(platform, module, SYS_CLK_FREQ)
        self.ddrphy = LanePHY(platform, phy) if lanes else phy
        self.add_dram(self.ddrphy, module)

        # Decoder ----------------------------------------------------------------------------------
        self.add_llama2(core)
        if hasattr(self.llama2.core, "watch"):    # stand-ins of the core need not have it
            self.stream_watch = StreamWatch(self.llama2.core, self.ddrphy.dfi, self.ddrphy.settings.read_latency)

        # SPI Flash --------------------------------------------------------------------------------
        if with_board_pins:
            self.add_model_flash(platform.request("spiflash"), MODEL_OFFSET)

        # Trace ------------------------------------------------------------------------------------
        # a waveform from or to a token looks at it, see soc/sim/trace.h
        self.comb += platform.trace.eq(self.llama2.core.irq)

# Build --------------------------------------------------------------------------------------------

def default_output_dir(columns, trace=False, **variant):
    parts = [("columns", columns, COLUMNS)] + [(VARIANTS[name], value, USUAL[name]) for name, value in variant.items()]
    return ROOT/"build"/("sim" + "".join(f"-{name}{value}" for name, value, usual in parts if value != usual)
                         + ("-trace" if trace else ""))


def gateware_dir(output_dir, builder_options):
    return Path(builder_options.get("gateware_dir") or output_dir/"gateware").resolve()


def create_core(columns, **variant):
    return configuration.create_core(columns=columns, **variant)


def sources_stamp(core, firmware, options):
    """Digest of everything a build reads, so that an unchanged one is over at once."""
    rooms = [path for room in ("spec", "accel", "soc", "targets") for path in (ROOT/room).rglob("*") if path.is_file()]
    extra = [inspect.getfile(type(core))] if core else []
    files = [*rooms, *extra, *(path for path in firmware.rglob("*") if path.is_file()), ROOT/"requirements.txt"]
    return sources_digest((path for path in files if "__pycache__" not in map(str, Path(path).parts)),
                          salt=repr(options))


def build(output_dir=None, columns=COLUMNS, *, variant=MappingProxyType({}), core=None, firmware=FIRMWARE,
          compile_gateware=True, with_board_pins=False, trace=False, soc_options=MappingProxyType({}),
          builder_options=MappingProxyType({})):
    """Build the simulator if anything changed, and return the path of Vsim.

    ``columns`` is the core's, ``variant`` those of ``VARIANTS`` that are otherwise than usual, or all of them.

    ``core`` (an instance with the signature of accel.core.Core) replaces the decoder core, ``firmware`` the
    directory of the firmware's sources: tests of the SoC use them. ``with_board_pins`` gives the SoC a board's UART
    instead of the byte-wide one, and a board's flash; behind the pins are a USB bridge and a chip that are simulated
    bit by bit (soc/sim/uart_bits.c, spi_flash.c). With ``trace`` it can write waveforms, and is slower. What decodes
    with the shipped firmware is compiled for a profile of that (soc/sim/training.py).
    """
    variant    = {**USUAL, **variant}
    output_dir = Path(output_dir or default_output_dir(columns, trace, **variant)).resolve()
    gateware   = gateware_dir(output_dir, builder_options)
    vsim       = gateware/sim_compile.VSIM
    stamp      = output_dir/"built"
    options    = (columns, sorted(variant.items()), with_board_pins, trace, sorted(soc_options.items()),
                  sorted(builder_options.items()), tools.versions())
    profiled   = core is None and firmware == FIRMWARE and not (with_board_pins or trace)
    with sim_compile.lock(output_dir):
        current = sources_stamp(core, firmware, options)
        if vsim.exists() and stamp.exists() and stamp.read_text() == current:
            return vsim
        stamp.unlink(missing_ok=True)
        print(f"building the simulator in {output_dir} (two or three minutes the first time)", file=sys.stderr,
              flush=True)
        note = ""
        with BuildProgress(vsim.parent), sim_compile.output_to(output_dir/"build.log"):
            # liblitedram's training, all that other firmware knows, writes over an image's first bytes.
            soc     = BaseSoC(core or create_core(columns, **variant), with_board_pins, lanes=firmware == FIRMWARE,
                              **soc_options)
            builder = Llama2Builder(soc, firmware, **{"csr_json": str(output_dir/"soc.json"), **builder_options,
                                                      "output_dir": str(output_dir)})
            config  = SimConfig()
            config.add_clocker("sys_clk", freq_hz=SYS_CLK_FREQ)
            config.add_module("uart_bits" if with_board_pins else "uart_tcp", "serial")
            if with_board_pins:
                config.add_module("spi_flash", "spiflash")
            builder.build(sim_config=config, interactive=False)
            if compile_gateware:
                sources = [gateware/name for name, *_ in soc.platform.sources if Path(name).suffix in (".v", ".sv")]
                note = sim_compile.compile(gateware, sources, [module["module"] for module in config.modules], CACHE,
                                           train=train if profiled else None, trace=trace)
                stamp.write_text(current)
        if note:
            print(note, file=sys.stderr, flush=True)
    return vsim

# Run ----------------------------------------------------------------------------------------------

def run(vsim, model_image=None, uart_port=0, trace=None, train=False, fault=None):
    """Simulate until interrupted; 0 unless the simulator failed, a DRAM timing was violated or ``trace`` recorded
    nothing."""
    sim = Simulator(vsim, model_image, uart_port, trace=trace, train=train, fault=fault)
    try:
        sim.start()
        print(f"listening on {sim.url}", flush=True)
        sim.process.wait()
        print(f"simulator ended with status {sim.process.returncode}, see {sim.log}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        sim.stop()
    output     = sim.output() if sim.log else ""
    violations = sim.violations() if sim.log else {}
    for what, count in violations.items():
        print(f"DRAM timing: {count} x {what}, see {sim.log}", file=sys.stderr)
    return 1 if violations or trace and not report(trace, recorded_cycles(output, SYS_CLK_FREQ)) else 0


def report(trace, cycles):
    """Say what is in the waveform; false if it was not written."""
    if cycles is None:
        print(f"no waveform in {trace.path}: the simulation ended before --trace-from", file=sys.stderr)
        return False
    first, last = cycles
    print(f"waveform of cycles {first} to {last} in {trace.path} ({trace.path.stat().st_size/1e6:.1f} MB)",
          file=sys.stderr)
    return True


def add_variant(add_argument):
    """Add the options of ``VARIANTS`` to a command line, by its ``add_argument``."""
    add_argument("--attention-lanes", default=USUAL["attention_lanes"], type=int, choices=(8, 16, 32),
                 help="Multipliers of each side of attention.")
    add_argument("--softmax-pipes",   default=USUAL["softmax_pipes"],   type=int, choices=(1, 2),
                 help="Scores of attention per cycle; 2 needs 16 lanes or more.")
    add_argument("--max-dim",         default=USUAL["max_dim"],         type=int, choices=(1024, 2048, 4096),
                 help="Largest dim, and largest number of elements of all query heads.")
    add_argument("--candidate-sets",  default=USUAL["candidate_sets"],  type=int, choices=(1, 2, 4),
                 help="How many columns of a pass may be sampled: 1, or all.")


def variant_of(parser, args):
    """The core's parameters that ``args`` ask for; ``parser`` refuses what there is not."""
    try:
        check_lanes(args.attention_lanes, args.softmax_pipes)
        if args.candidate_sets not in (1, args.columns):
            raise ValueError(f"--candidate-sets is 1, or {args.columns} as --columns is, not {args.candidate_sets}")
    except ValueError as error:
        parser.error(str(error))
    return {name: getattr(args, name) for name in VARIANTS}


def create_parser():
    parser = LiteXArgumentParser()
    # LiteX mistakes keywords for prog
    parser.prog, parser.description = "targets/sim.py", "LLaMA-2 decoder SoC in Verilator."
    parser.set_platform(Platform)
    parser.add_target_argument("--build",        action="store_true",
                               help="Build the simulator, if anything changed.")
    parser.add_target_argument("--run",          action="store_true",      help="Run it until interrupted.")
    parser.add_target_argument("--sys-clk-freq", default=SYS_CLK_FREQ, type=float,
                               help="System clock frequency; the simulation has this one only.")
    parser.add_target_argument("--columns",      default=COLUMNS, type=int, choices=(1, 2, 4),
                               help="Positions that share one pass over the weights.")
    add_variant(parser.add_target_argument)
    parser.add_target_argument("--model-image",  default=None, type=Path,
                               help="File that fills the DRAM when the simulation starts.")
    parser.add_target_argument("--uart-port",    default=0, type=int,
                               help="Loopback TCP port of the UART; 0 takes a free one.")
    parser.add_target_argument("--trace",        default=None, type=Path, nargs="?", const=DEFAULT_TRACE,
                               metavar="FILE", help="Write a waveform (FST), into trace.fst of the build if no FILE is "
                                                    "named; with --build, build a simulator that can.")
    parser.add_target_argument("--trace-from",   default=None, type=Moment.parse, metavar="WHEN",
                               help="Where the waveform begins: a cycle as in 12000, or a token as in token:3.")
    parser.add_target_argument("--trace-to",     default=None, type=Moment.parse, metavar="WHEN",
                               help="Where it ends, likewise.")
    parser.add_target_argument("--dram-train",   action="store_true",
                               help="Have the firmware train the DRAM's lanes (two seconds).")
    parser.add_target_argument("--dram-fault",   default=None, choices=DRAM_FAULTS,
                               help="Plant a fault in the simulated DRAM, for llama2-host doctor.")
    parser.set_defaults(uart_name="sim", integrated_rom_size=ROM_SIZE, integrated_sram_size=SRAM_SIZE, l2_size=L2_SIZE)
    return parser


def changed_options(parser):
    """The command line's options for the SoC and for the Builder that differ from their defaults, as two
    dictionaries."""
    defaults = create_parser()
    defaults.parse_args([])
    return tuple({k: v for k, v in getattr(parser, name).items() if v != getattr(defaults, name)[k]}
                 for name in ("soc_argdict", "builder_argdict"))


def main():
    parser = create_parser()
    args   = parser.parse_args()
    if args.sys_clk_freq != SYS_CLK_FREQ:
        parser.error(f"--sys-clk-freq is {SYS_CLK_FREQ:.0f} Hz in simulation: the DRAM timings are those of that clock")
    variant = variant_of(parser, args)
    if not args.build and not args.run:
        parser.print_help()
        return 0
    if (args.trace_from or args.trace_to) and not (args.trace and args.run):
        parser.error("--trace-from and --trace-to choose a part of what --run --trace records: add both, or leave them "
                     "out")

    signal.signal(signal.SIGTERM, signal.default_int_handler)    # as Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)     # shells start background jobs without it
    try:
        output_dir = Path(args.output_dir or default_output_dir(args.columns, bool(args.trace), **variant)).resolve()
        soc_options, builder_options = changed_options(parser)
        builder_options.pop("output_dir", None)
        vsim = gateware_dir(output_dir, builder_options)/sim_compile.VSIM
        if args.build:
            vsim = build(output_dir, args.columns, variant=variant,
                         compile_gateware=builder_options.pop("compile_gateware", True),
                         trace=bool(args.trace), soc_options=soc_options, builder_options=builder_options)
        trace = args.trace and Trace(output_dir/DEFAULT_TRACE if args.trace == DEFAULT_TRACE else args.trace,
                                     args.trace_from, args.trace_to)
        return run(vsim, args.model_image, args.uart_port, trace, args.dram_train, args.dram_fault) if args.run else 0
    except (SimulatorError, sim_compile.BuildError, tools.ToolError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    return 1

if __name__ == "__main__":
    sys.exit(main())
