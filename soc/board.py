"""What the targets with a board share: options, building without a surprise, loading only what was just described."""
import subprocess
import sys
from pathlib import Path
from shutil import which

from litex.soc.integration.soc_core import *    # first: litex.build.parser needs it loaded

from litex.build.parser import LiteXArgumentParser

from soc.amaranth import sources_digest
from soc.base import FIRMWARE, Llama2Builder

ROOT  = Path(__file__).resolve().parent.parent
ROOMS = ("spec", "accel", "soc", "targets", "firmware")    # what a bitstream is made from

# Block RAM is what the smallest board has least of: what the firmware needs and no more. The simulator has more, for the
# baseline in C, and an L2, for its image in DRAM; the linker refuses a firmware that outgrows a board.
ROM_SIZE  = 0x7000    # bytes
SRAM_SIZE = 0x5000    # bytes
L2_SIZE   = 0         # bytes: the CPU uses DRAM only to load a model


class Refusal(Exception):
    """What is in the way, and what to do about it, in one line."""

# Options ------------------------------------------------------------------------------------------

def create_parser(prog, platform, toolchains, sys_clk_freq, description, **defaults):
    """LiteX's options and those of every board. ``toolchains`` and ``defaults`` replace LiteX's."""
    parser = LiteXArgumentParser(platform=platform)
    parser.prog, parser.description = prog, description    # LiteX mistakes keywords for prog
    for action in parser._actions:
        if action.dest == "toolchain":
            action.choices, action.help = tuple(toolchains), "FPGA toolchain."
    parser.add_target_argument("--flash",        action="store_true", help="Write the bitstream to the board's flash: it survives power-off.")
    parser.add_target_argument("--sys-clk-freq", default=sys_clk_freq, type=float, help="System clock frequency.")
    parser.set_defaults(integrated_rom_size=ROM_SIZE, integrated_sram_size=SRAM_SIZE, l2_size=L2_SIZE, **defaults)
    return parser

# Build --------------------------------------------------------------------------------------------

def design_digest(args):
    """Identity of the bitstream that ``args`` ask for: sources and options."""
    files   = [path for room in ROOMS for path in (ROOT/room).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    ignored = ("build", "load", "flash", "no_compile", "no_compile_gateware", "log_filename", "log_level", "doc")
    options = {k: v for k, v in sorted(vars(args).items()) if k not in ignored}
    return sources_digest([*files, ROOT/"requirements.txt"], salt=repr(options))


class Build:
    """One board's build: its files, and what they were made from.

    Parameters
    ----------
    parser : LiteXArgumentParser
        After ``parse_args``.
    soc : Llama2SoC
    output_dir : Path
        Where the build goes if ``--output-dir`` names no other place.
    """
    def __init__(self, parser, args, soc, output_dir):
        options           = dict(parser.builder_argdict)
        options["output_dir"] = str(Path(args.output_dir or output_dir).resolve())
        self.toolchain    = parser.toolchain_argdict
        self.digest       = design_digest(args)
        self.builder      = Llama2Builder(soc, FIRMWARE, **options)
        self.gateware     = Path(self.builder.gateware_dir).resolve()
        self.stamp        = self.gateware/"generated-from"
        self.name         = soc.platform.name

    @property
    def script(self):
        return self.gateware/f"build_{self.name}.sh"

    def bitstream(self, mode="sram"):
        return Path(self.builder.get_bitstream_filename(mode))

    def generate(self, run):
        """Write Verilog, constraints, script and firmware; with ``run``, run the script."""
        for path in (self.stamp, self.bitstream("sram"), self.bitstream("flash")):
            path.unlink(missing_ok=True)    # from now on, what lies there is of this design
        self.gateware.mkdir(parents=True, exist_ok=True)
        self.stamp.write_text(self.digest)
        try:
            self.builder.build(run=run, **self.toolchain)
        except (OSError, subprocess.CalledProcessError, SystemExit) as error:    # LiteX's ways to say that a tool failed
            for path in (self.stamp, self.bitstream("sram"), self.bitstream("flash")):
                path.unlink(missing_ok=True)
            raise Refusal(f"the build failed ({str(error).splitlines()[0]}): see the messages above and {self.gateware}") from None
        if run and not self.bitstream().exists():
            raise Refusal(f"{self.script} left no bitstream: see its messages above")

    def current(self, mode):
        """The bitstream, refused unless it is of the present sources and options."""
        path = self.bitstream(mode)
        if not path.exists():
            raise Refusal(f"there is no {path}: run with --build, or run {self.script} on a machine with the tools and put the "
                          "bitstream there")
        if not self.stamp.exists() or self.stamp.read_text() != self.digest or path.stat().st_mtime < self.stamp.stat().st_mtime:
            raise Refusal(f"{path} is older than the sources, or was built with other options: run with --build")
        reserved = self.builder.soc.constants.get("FLASH_MODEL_OFFSET")
        if mode == "flash" and reserved and path.stat().st_size > reserved:
            raise Refusal(f"{path} has {path.stat().st_size} bytes, and the flash's model begins at {reserved}: build without --with-spi-flash")
        return str(path)


def require(tools, install):
    """Refuse unless all of ``tools`` are on PATH."""
    missing = [tool for tool in tools if which(tool) is None]
    if missing:
        raise Refusal(f"{', '.join(missing)} not found: {install}")


def execute(parser, args, build, programmer, tools, install, needs_tools=False):
    """Do what ``args`` ask for, and return the exit status.

    ``programmer()`` yields LiteX's programmer of the board, ``tools`` are the programs that the build's script needs,
    ``install`` says how to get them. With ``needs_tools``, not even the script can be written without them.
    """
    if not (args.build or args.load or args.flash):
        parser.print_help()
        return 0
    try:
        if args.build:
            run     = build.builder.compile_gateware
            missing = [tool for tool in tools if which(tool) is None]
            if needs_tools:
                require(tools, install)
            build.generate(run=run and not missing)
            if run and missing:
                require(tools, f"{install}; the build script is {build.script}")
        for mode, wanted in (("sram", args.load), ("flash", args.flash)):
            if wanted:
                build.current(mode)
        if args.load or args.flash:
            require(["openFPGALoader"], "install it (Debian: apt-get install openfpgaloader) to load a board")
        if args.load:
            programmer().load_bitstream(build.current("sram"))
        if args.flash:
            programmer().flash(0, build.current("flash"))
        return 0
    except Refusal as refusal:
        print(f"{parser.prog}: {refusal}", file=sys.stderr)
        return 1
