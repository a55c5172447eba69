"""What the targets with a board share: options, builds, and loading of bitstreams that match the present sources."""
import subprocess
import sys
from pathlib import Path
from shutil import which

from litex.soc.integration.soc_core import *    # first: litex.build.parser needs it loaded

from litex.build.parser import LiteXArgumentParser

from soc import timing
from soc.amaranth import sources_digest
from soc.base import FIRMWARE, L2_SIZE, ROM_SIZE, SRAM_SIZE, Llama2Builder
from soc.llama2 import DramWidthError

ROOT  = Path(__file__).resolve().parent.parent
ROOMS = ("spec", "accel", "soc", "targets", "firmware")    # a bitstream's sources

#: The timing report of the routed design, by toolchain.
REPORTS = {"vivado": "{name}_timing.rpt", "trellis": "report.json", "openxc7": "report.json"}


class Refusal(Exception):
    """Ends a command; the message says in one line what is in the way, and what to do about it."""

# Options ------------------------------------------------------------------------------------------

def create_parser(prog, platform, toolchains, sys_clk_freq, description, **defaults):
    """LiteX's options and those of every board. ``toolchains`` and ``defaults`` replace LiteX's."""
    parser = LiteXArgumentParser(platform=platform)
    parser.prog, parser.description = prog, description    # LiteX mistakes keywords for prog
    for action in parser._actions:
        if action.dest == "toolchain":
            action.choices, action.help = tuple(toolchains), "FPGA toolchain."
    parser.add_target_argument("--flash",        action="store_true",
                               help="Write the bitstream to the board's flash: it survives power-off.")
    parser.add_target_argument("--allow-timing-violations", action="store_true",
                               help="Let --load and --flash take a bitstream whose timing report says that it misses "
                                    "its clock.")
    parser.add_target_argument("--sys-clk-freq", default=sys_clk_freq, type=float, help="System clock frequency.")
    parser.set_defaults(integrated_rom_size=ROM_SIZE, integrated_sram_size=SRAM_SIZE, l2_size=L2_SIZE, **defaults)
    return parser

# Build --------------------------------------------------------------------------------------------

def design_digest(args):
    """Digest of the sources and options of the bitstream that ``args`` ask for."""
    files   = [path for room in ROOMS for path in (ROOT/room).rglob("*") if path.is_file()
               and "__pycache__" not in path.parts]
    ignored = ("build", "load", "flash", "no_compile", "no_compile_gateware", "allow_timing_violations", "log_filename",
               "log_level", "doc")
    options = {k: v for k, v in sorted(vars(args).items()) if k not in ignored}
    return sources_digest([*files, ROOT/"requirements.txt"], salt=repr(options))


class Build:
    """One board's build: its files, and the digest of their sources.

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
        self.report       = self.gateware/REPORTS[args.toolchain].format(name=self.name)

    @property
    def script(self):
        return self.gateware/f"build_{self.name}.sh"

    def bitstream(self, mode="sram"):
        return Path(self.builder.get_bitstream_filename(mode))

    def generate(self, run):
        """Write Verilog, constraints, script and firmware; with ``run``, run the script."""
        for path in (self.stamp, self.report, self.bitstream("sram"), self.bitstream("flash")):
            path.unlink(missing_ok=True)    # what lies there from now on belongs to this design
        self.gateware.mkdir(parents=True, exist_ok=True)
        self.stamp.write_text(self.digest)
        try:
            self.builder.build(run=run, **self.toolchain)
        except (OSError, subprocess.CalledProcessError, SystemExit) as error:
            # LiteX's ways to say that a tool failed
            for path in (self.stamp, self.bitstream("sram"), self.bitstream("flash")):
                path.unlink(missing_ok=True)
            raise Refusal(
                f"the build failed ({str(error).splitlines()[0]}): see the messages above and "
                f"{self.gateware}") from None
        if run and not self.bitstream().exists():
            raise Refusal(f"{self.script} left no bitstream: see its messages above")

    def current(self, mode):
        """Path of the bitstream; refuses one of other sources or options."""
        path = self.bitstream(mode)
        if not path.exists():
            raise Refusal(f"there is no {path}: run with --build, or run {self.script} on a machine with the tools and "
                          "put the bitstream there")
        if not self.stamp.exists() or self.stamp.read_text() != self.digest \
                or path.stat().st_mtime < self.stamp.stat().st_mtime:
            raise Refusal(f"{path} is older than the sources, or was built with other options: run with --build")
        reserved = self.builder.soc.constants.get("FLASH_MODEL_OFFSET")
        if mode == "flash" and reserved and path.stat().st_size > reserved:
            raise Refusal(f"{path} has {path.stat().st_size} bytes, and the flash's model begins at {reserved}: build "
                          "without --with-spi-flash")
        return str(path)

    def timing(self):
        """The build's timing, or None if it has no report; raises UnreadableReport."""
        if not self.report.exists() or not self.stamp.exists() \
                or self.report.stat().st_mtime < self.stamp.stat().st_mtime:
            return None
        return timing.read(self.report)

    def timing_line(self):
        """The report in one line."""
        try:
            found = self.timing()
        except timing.UnreadableReport as error:
            return f"timing unknown: {self.report} cannot be read, {error}"
        return str(found or f"timing unknown: there is no {self.report} of this build")

    def check_timing(self, allow):
        """Refuse a bitstream that misses its timing unless ``allow``. Returns a warning about a bitstream that is
        taken, or None."""
        try:
            found = self.timing()
        except timing.UnreadableReport:
            found = None
            if not allow:
                raise Refusal(f"{self.timing_line()}: copy the report that belongs to the bitstream there, or add "
                              "--allow-timing-violations") from None
        if found and found.met:
            return None
        if found and not allow:
            raise Refusal(f"{found} in {self.report}: --build with a lower --sys-clk-freq, or add "
                          "--allow-timing-violations")
        return self.timing_line()


def require(tools, install):
    """Refuse unless all of ``tools`` are on PATH."""
    missing = [tool for tool in tools if which(tool) is None]
    if missing:
        raise Refusal(f"{', '.join(missing)} not found: {install}")


def build_bitstream(build, tools, install, needs_tools):
    """Generate the design, run its script and print the timing that it reached. Refuses if ``tools`` are missing."""
    run     = build.builder.compile_gateware
    missing = [tool for tool in tools if which(tool) is None]
    if needs_tools:
        require(tools, install)
    build.generate(run=run and not missing)
    if run:
        require(missing, f"{install}; the build script is {build.script}")
        print(build.timing_line(), flush=True)


def load_bitstream(prog, args, build, programmer):
    """Do what ``--load`` and ``--flash`` ask for, with a bitstream of the present sources that meets its timing."""
    modes = [mode for mode, wanted in (("sram", args.load), ("flash", args.flash)) if wanted]
    paths = {mode: build.current(mode) for mode in modes}
    note  = build.check_timing(args.allow_timing_violations)
    require(["openFPGALoader"], "install it (Debian: apt-get install openfpgaloader) to load a board")
    if note:
        print(f"{prog}: {note}; loading it all the same", file=sys.stderr, flush=True)
    if "sram" in paths:
        programmer().load_bitstream(paths["sram"])
    if "flash" in paths:
        programmer().flash(0, paths["flash"])


def execute(parser, args, clocks, create_build, programmer, tools, install, needs_tools=False):
    """Do what ``args`` ask for, and return the exit status.

    ``clocks`` are the board's (:class:`soc.clocks.Clocks`), ``create_build()`` yields its :class:`Build`,
    ``programmer()`` LiteX's programmer of the board. ``tools`` are the programs that the build's script needs,
    ``install`` says how to get them. With ``needs_tools``, not even the script can be written without them.
    """
    try:
        if args.allow_timing_violations and not (args.load or args.flash):
            raise Refusal("--allow-timing-violations has no effect without --load or --flash")
        if not (args.build or args.load or args.flash):
            parser.print_help()
            return 0
        if refusal := clocks.refusal(args.sys_clk_freq):
            raise Refusal(f"--sys-clk-freq {args.sys_clk_freq:g}: {refusal}")
        try:
            build = create_build()
        except DramWidthError as error:
            raise Refusal(str(error)) from None
        if args.build and args.doc:
            require(["sphinx-build"], "install Sphinx with sphinxcontrib-wavedrom, or leave out --doc")
        if args.build:
            build_bitstream(build, tools, install, needs_tools)
        if args.load or args.flash:
            load_bitstream(parser.prog, args, build, programmer)
        return 0
    except Refusal as refusal:
        print(f"{parser.prog}: {refusal}", file=sys.stderr)
        return 1
