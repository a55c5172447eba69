"""The boards' targets: one configuration, firmware in ROM, pins that exist, and refusals instead of surprises."""
import importlib
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from bench import memories
from soc import board, configuration, open_tools
from soc.clocks import option

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

# name of the target: options, build name, constraints; compiling for one board is enough for the tests' time
TARGETS = {
    "arty":   (["--with-spi-flash"], "digilent_arty", "xdc"),
    "ecpix5": (["--no-compile-software", "--with-spi-flash"], "lambdaconcept_ecpix5", "lpf"),
}
#: What a target's core has otherwise than soc.configuration, and why.
DEVIATIONS = {    # (target, parameter): (value, reason)
    ("ecpix5", "multiplier_bits"): (18, "an ECP5 multiplies 18 by 18 bits"),
}


def python_target(name, *options, env=None):
    return subprocess.run([sys.executable, f"targets/{name}.py", *options], cwd=ROOT, env=env, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def default_core(name):
    module = importlib.import_module(f"targets.{name}")
    return module.create_core(module.COLUMNS) if name == "sim" else module.create_core()

# Configuration ------------------------------------------------------------------------------------

@pytest.mark.parametrize("parameter", configuration.PARAMETERS)
@pytest.mark.parametrize("name", ["sim", "arty", "ecpix5"])
def test_core_is_the_one_configuration(name, parameter):
    expected, _ = DEVIATIONS.get((name, parameter), (configuration.PARAMETERS[parameter], None))
    assert getattr(default_core(name), parameter) == expected


def test_deviations_are_real():
    for (name, parameter), (value, reason) in DEVIATIONS.items():
        assert reason and getattr(default_core(name), parameter) == value != configuration.PARAMETERS[parameter]


def test_a_larger_arty_has_more_lanes_and_columns():
    core = importlib.import_module("targets.arty").create_core("a7-100")
    more = {"attention_lanes": 16, "columns": 4, "candidate_sets": 4}
    assert configuration.PARAMETERS | more == {name: getattr(core, name) for name in configuration.PARAMETERS}


def test_simulators_that_differ_lie_in_folders_of_their_own():
    sim = importlib.import_module("targets.sim")
    variants = ({}, {"attention_lanes": 16}, {"attention_lanes": 16, "softmax_pipes": 2}, {"max_dim": 2048})
    folders = {sim.default_output_dir(sim.COLUMNS, **{**sim.USUAL, **variant}).name for variant in variants}
    assert folders == {"sim", "sim-lanes16", "sim-lanes16-pipes2", "sim-dim2048"}


def test_simulator_refuses_pipes_that_have_no_lanes():
    done = python_target("sim", "--build", "--softmax-pipes", "2")
    assert done.returncode == 2
    assert done.stderr.endswith("targets/sim.py: error: Attention of 8 lanes has 1 softmax pipe, not 2\n")


def test_configuration_names_all_of_the_cores_parameters():
    core = configuration.create_core()
    public = {k: v for k, v in vars(core).items() if isinstance(v, int) and not k.startswith("_")}
    assert public == configuration.PARAMETERS

# Generated designs --------------------------------------------------------------------------------

@pytest.fixture(scope="module", params=TARGETS)
def design(request):
    """(name, directory of the gateware, build name, suffix of the constraints), generated with the firmware."""
    options, build_name, suffix = TARGETS[request.param]
    # A folder for each test process: two that build in one at a time spoil each other's libraries.
    out = ROOT/"build"/"tests"/os.environ.get("PYTEST_XDIST_WORKER", "alone")/request.param
    done = python_target(request.param, "--build", "--no-compile-gateware", "--output-dir", str(out), *options)
    assert done.returncode == 0, done.stderr[-2000:]
    return request.param, out, build_name, suffix


@pytest.mark.parametrize("design", ["arty"], indirect=True)
def test_rom_holds_the_firmware(design):
    _, out, build_name, _ = design
    firmware = (out/"software"/"firmware"/"firmware.bin").read_bytes()
    firmware += bytes(-len(firmware) % 4)
    verilog = (out/"gateware"/f"{build_name}.v").read_text()
    parts = re.findall(r'\$readmemh\("(\w+_rom\d*\.init)", (rom\d*)\)', verilog)
    depth = sum(int(re.search(rf"reg \[31:0\] {memory}\[0:(\d+)\]", verilog)[1]) + 1 for _, memory in parts)
    words = [int(line, 16) for file, _ in parts for line in (out/"gateware"/file).read_text().split()]
    assert len(firmware) > 10_000 and words[:len(firmware)//4] == list(struct.unpack(f"<{len(firmware)//4}I", firmware))
    assert not any(words[len(firmware)//4:]) and depth == board.ROM_SIZE//4 >= len(words)


@pytest.mark.parametrize("design", ["arty"], indirect=True)
def test_firmware_trains_the_dram(design):
    """Beyond the simulator's firmware, whose sources it shares: LiteDRAM's training for the board's PHY."""
    _, out, _, _ = design
    symbols = subprocess.run(["riscv64-unknown-elf-nm", out/"software"/"firmware"/"firmware.elf"], check=True,
                             text=True, stdout=subprocess.PIPE).stdout
    # Of the project's own functions only those that assembly calls: the others may be gone into their callers.
    assert {"main", "isr", "sdram_init", "sdram_read_leveling"} <= set(re.findall(r" T (\w+)", symbols))


@pytest.mark.parametrize("design", ["arty"], indirect=True)
def test_bitstream_that_reaches_into_the_flashs_model_is_refused(design):
    _, out, build_name, _ = design
    offset    = importlib.import_module("targets.arty").MODEL_OFFSET["a7-35"]
    bitstream = out/"gateware"/f"{build_name}.bin"    # what LiteX would write to the flash
    with open(bitstream, "wb") as file:
        file.truncate(offset + 1)
    done = python_target("arty", "--flash", "--with-spi-flash", "--output-dir", str(out))
    bitstream.unlink()
    assert (done.returncode == 1
            and f"the flash's model begins at {offset}: build without --with-spi-flash" in last_line(done))


def located(text, suffix):
    """{top-level port: pin} of a constraints file."""
    pattern = {"xdc": r"set_property LOC (\w+) \[get_ports \{([^}]+)\}\]",
               "lpf": r'LOCATE COMP  ?"([^"]+)" SITE "(\w+)";'}[suffix]
    found = re.findall(pattern, text)
    return {port: pin for pin, port in found} if suffix == "xdc" else dict(found)


def top_ports(verilog, build_name):
    """Every bit of the top module's ports, as constraints name them."""
    head = re.search(rf"^module {build_name} \((.*?)\);", verilog, re.S | re.M).group(1)
    for width, name in re.findall(r"(?:input|output|inout)\s+(?:wire|reg)\s+(?:\[\s*(\d+):0\])?\s*(\w+)", head):
        yield from [f"{name}[{i}]" for i in range(int(width) + 1)] if width else [name]


def board_pins(name):
    """Every pin that the board's platform knows, its connectors included."""
    from litex.build.generic_platform import Pins, Subsignal
    from litex_boards.platforms import digilent_arty, lambdaconcept_ecpix5
    module = {"arty": digilent_arty, "ecpix5": lambdaconcept_ecpix5}[name]
    def pins(items):
        for item in items:
            if isinstance(item, Pins):
                yield from item.identifiers
            elif isinstance(item, Subsignal):
                yield from pins(item.constraints)
    return {pin for resource in module._io for pin in pins(resource[2:])}


def test_every_port_has_a_pin_of_the_board(design):
    name, out, build_name, suffix = design
    pins  = located((out/"gateware"/f"{build_name}.{suffix}").read_text(), suffix)
    ports = set(top_ports((out/"gateware"/f"{build_name}.v").read_text(), build_name))
    assert len(ports) > 40 and set(pins) == ports
    assert set(pins.values()) <= board_pins(name)
    assert len(set(pins.values())) == len(pins), "two ports share a pin"

# Refusals -----------------------------------------------------------------------------------------

FAST = ("--no-compile-software",)    # no firmware: nothing here runs it


@pytest.fixture
def bare_path(tmp_path):
    """An environment whose PATH has the system's programs, but no FPGA tools; more can be put into ``bin``."""
    bin = tmp_path/"bin"
    bin.mkdir()
    return bin, {**os.environ, "PATH": f"{bin}:/usr/bin:/bin", "LITEX_ENV_VIVADO": ""}


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def last_line(done):
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_build_without_vivado_says_what_to_install_and_where_the_script_lies(tmp_path, bare_path):
    done = python_target("arty", "--build", "--output-dir", str(tmp_path/"out"), *FAST, env=bare_path[1])
    script = tmp_path/"out"/"gateware"/"build_digilent_arty.sh"
    assert done.returncode == 1 and script.exists()
    assert "vivado not found: install Vivado" in last_line(done) and str(script) in last_line(done)


def test_openxc7_is_refused_before_anything_is_written(tmp_path, bare_path):
    done = python_target("arty", "--toolchain", "openxc7", "--build", "--output-dir", str(tmp_path/"out"), *FAST,
                         env=bare_path[1])
    assert (done.returncode == 1 and "nextpnr-xilinx" in last_line(done)
            and "install the openXC7 toolchain" in last_line(done))
    assert not list((tmp_path/"out").rglob("*.v"))


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A generated Arty design without a bitstream."""
    out = tmp_path_factory.mktemp("arty")
    assert python_target("arty", "--build", "--no-compile-gateware", "--output-dir", str(out), *FAST).returncode == 0
    return out


def test_load_takes_the_current_bitstream_and_no_older_one(generated, tmp_path, bare_path):
    bin, env  = bare_path
    bitstream = generated/"gateware"/"digilent_arty.bit"
    stamp     = generated/"gateware"/"generated-from"
    load      = lambda *options: python_target("arty", "--load", "--output-dir", str(generated), *FAST, *options,
                                               env=env)
    program(bin/"openFPGALoader", f'echo "$@" > {tmp_path}/called')

    assert "there is no" in last_line(load())
    bitstream.write_bytes(b"bits")
    done = load()
    assert done.returncode == 0, done.stderr[-500:]
    assert (tmp_path/"called").read_text().split() == ["--board", "arty_a7_35t", "--bitstream", str(bitstream)]

    (tmp_path/"called").unlink()
    os.utime(bitstream, (stamp.stat().st_mtime - 10,)*2)
    done = load()
    assert done.returncode == 1 and "is older than the sources" in last_line(done)
    os.utime(bitstream)
    done = load("--uart-baudrate", "1000000")
    assert done.returncode == 1 and "other options" in last_line(done)
    assert not (tmp_path/"called").exists()

    (bin/"openFPGALoader").unlink()
    done = load()
    assert done.returncode == 1 and "openFPGALoader not found" in last_line(done)


def test_failed_build_loads_nothing(tmp_path, bare_path):
    bin, env = bare_path
    bitstream = tmp_path/"out"/"gateware"/"digilent_arty.bit"
    bitstream.parent.mkdir(parents=True)
    bitstream.write_bytes(b"yesterday's")
    program(bin/"vivado", "exit 1")
    program(bin/"openFPGALoader", f"touch {tmp_path}/called")
    done = python_target("arty", "--build", "--load", "--output-dir", str(tmp_path/"out"), *FAST, env=env)
    assert done.returncode == 1 and "the build failed" in last_line(done)
    assert not (tmp_path/"called").exists() and not bitstream.exists()


# Timing -------------------------------------------------------------------------------------------

def vivado_report(setup="0.121", hold="0.020", words="All user specified timing constraints are met."):
    """As much of Vivado's summary as tells the slack."""
    return ("| Design Timing Summary\n\n"
            "    WNS(ns)      TNS(ns)      WHS(ns)      THS(ns)     WPWS(ns)\n"
            "    -------      -------      -------      -------     --------\n"
            f"{setup:>11}        0.000  {hold:>11}        0.000        0.264\n\n\n{words}\n")


@pytest.fixture
def loadable(generated, bare_path, tmp_path):
    """(load(report, *options), called): a bitstream of the present design, and a programmer that leaves a file when it
    is called."""
    bin, env  = bare_path
    called    = tmp_path/"called"
    bitstreams = [generated/"gateware"/f"digilent_arty.{end}" for end in ("bit", "bin")]    # to load, to flash
    report    = generated/"gateware"/"digilent_arty_timing.rpt"
    program(bin/"openFPGALoader", f'touch "{called}"')

    def load(text, *options):
        for bitstream in bitstreams:
            bitstream.write_bytes(b"bits")
        report.unlink(missing_ok=True)
        if text is not None:
            report.write_text(text)
        called.unlink(missing_ok=True)
        return python_target("arty", "--output-dir", str(generated), *FAST, *(options or ["--load"]), env=env)
    yield load, called
    for path in (*bitstreams, report):
        path.unlink(missing_ok=True)


def test_bitstream_that_meets_its_timing_is_loaded(loadable):
    load, called = loadable
    done = load(vivado_report())
    assert done.returncode == 0 and called.exists() and "timing" not in done.stderr


@pytest.mark.parametrize("option", ["--load", "--flash"])
@pytest.mark.parametrize("report, said", [
    (vivado_report(setup="-0.312"), "worst slack -0.312 ns (setup)"),
    (vivado_report(hold="-0.001"), "worst slack -0.001 ns (hold)"),
    (vivado_report(words="Timing constraints are not met."), "timing NOT met"), ("cut off", "timing unknown")])
def test_bitstream_that_misses_its_timing_is_refused_unless_allowed(loadable, report, said, option):
    load, called = loadable
    done = load(report, option)
    assert done.returncode == 1 and not called.exists()
    assert len(done.stderr.strip().splitlines()) == 1 or last_line(done).startswith("targets/arty.py:")
    assert said in last_line(done) and "--allow-timing-violations" in last_line(done)
    done = load(report, option, "--allow-timing-violations")
    assert done.returncode == 0 and called.exists() and said in done.stderr


def test_missing_report_is_said(loadable):
    load, called = loadable
    done = load(None)
    assert done.returncode == 0 and called.exists()
    assert "timing unknown: there is no" in done.stderr and "digilent_arty_timing.rpt of this build" in done.stderr


def test_allowing_violations_without_loading_is_refused():
    done = python_target("arty", "--build", "--allow-timing-violations")
    assert (done.returncode == 1 and done.stderr.count("\n") == 1
            and "no effect without --load or --flash" in done.stderr)


@pytest.mark.parametrize("setup, said", [("0.121", "timing met, worst slack +0.020 ns (hold)"),
                                         ("-0.121", "timing NOT met, worst slack -0.121 ns (setup)")])
def test_build_ends_with_the_slack(tmp_path, bare_path, setup, said):
    bin, env = bare_path
    (tmp_path/"report").write_text(vivado_report(setup))
    program(bin/"vivado", f'cp "{tmp_path}/report" digilent_arty_timing.rpt && touch digilent_arty.bit')
    done = python_target("arty", "--build", "--output-dir", str(tmp_path/"out"), *FAST, env=env)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == said

# A build folder that moves ------------------------------------------------------------------------

#: A Vivado that looks for what the script names, below the folder it runs in and nowhere else, and leaves a bitstream.
VIVADO = r"""
import re, sys
from pathlib import Path
here = Path.cwd().resolve()
def there(name):
    path = (here/name).resolve()
    assert not Path(name).is_absolute() and path.is_relative_to(here) and path.is_file(), name
    return path
tcl = there(sys.argv[sys.argv.index("-source") + 1]).read_text()
read = re.findall(r"^(?:read_\w+|add_files|source)(?: -\S+)* \{?([^{}\n]+?)\}?$", tcl, re.M)
assert len(read) >= 4 and "-include_dirs" not in tcl and "ROOT" not in tcl, read
for name in read:
    text = there(name).read_text()
    for contents in re.findall(r'\$readmem[bh]\("([^"]+)"', text):
        there(contents)
Path("digilent_arty.bit").write_text("bits")
print("read", *read)
""".replace("ROOT", str(ROOT))


@pytest.mark.parametrize("settings", [False, True])
@pytest.mark.parametrize("design", ["arty"], indirect=True)
def test_generated_folder_runs_elsewhere(design, tmp_path, settings):
    """Moved to a path with spaces, called from another directory; Vivado on PATH, or by the settings of the machine
    that runs it."""
    _, out, build_name, _ = design
    moved = tmp_path/"another machine"/"the gateware"
    shutil.copytree(out/"gateware", moved)
    bin = tmp_path/"viv ado"
    bin.mkdir()
    (bin/"vivado.py").write_text(VIVADO)
    # a path with a space cannot stand behind #!
    program(bin/"vivado", f'exec "{sys.executable}" "{bin}/vivado.py" "$@"')
    (bin/"settings64.sh").write_text(f'PATH="{bin}:$PATH"\n')
    env  = {**os.environ, "PATH": "/usr/bin:/bin" if settings else f"{bin}:/usr/bin:/bin",
            "LITEX_ENV_VIVADO": str(bin) if settings else ""}
    done = subprocess.run(["sh", str(moved/f"build_{build_name}.sh")], cwd=tmp_path, env=env, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (moved/f"{build_name}.bit").exists() and f"{build_name}.v" in done.stdout and "llama2_core.v" in done.stdout


def test_generated_ecp5_sources_lie_in_the_folder(design):
    name, out, build_name, _ = design
    if name == "ecpix5":
        script = (out/"gateware"/f"{build_name}.ys").read_text()
        read   = re.findall(r"^read_verilog (\S+)$", script, re.M)
        assert len(read) == 3 and all((out/"gateware"/file).is_file() and not Path(file).is_absolute() for file in read)

def test_yosys_in_vivados_place_knows_the_roms(tmp_path):
    """A ROM in look-up tables has a style that Yosys would refuse."""
    done = python_target("arty", "--build", "--no-compile", "--synth-mode", "yosys", "--output-dir",
                         str(tmp_path/"out"))
    steps = (tmp_path/"out"/"gateware"/"digilent_arty.ys").read_text().splitlines()
    assert (done.returncode == 0
            and steps.index(open_tools.ROMS) < next(i for i, step in enumerate(steps) if step.startswith("synth_")))


def test_documentation_without_its_tool_is_refused(bare_path):
    done = python_target("arty", "--build", "--doc", env=bare_path[1])
    assert done.returncode == 1 and "sphinx-build not found" in last_line(done)

# Clocks -------------------------------------------------------------------------------------------

def clocks_of(name):
    return importlib.import_module(f"targets.{name}").clocks()


@pytest.mark.parametrize("name, freq, near", [
    ("arty", "90e6", "87.5e6 and 100e6"), ("arty", "1e12", "100e6"), ("arty", "33e6", "50e6"), ("arty", "0", "50e6"),
    ("arty", "nan", "100e6"),
    ("arty", "-1e8", "50e6"), ("arty", "inf", "100e6"), ("ecpix5", "1e12", "200e6"), ("ecpix5", "12e6", "48.0159e6")])
def test_clock_that_cannot_be_made_is_refused_with_the_nearest(name, freq, near):
    refusal = clocks_of(name).refusal(float(freq))
    assert refusal.endswith(f" {near}") and "\n" not in refusal


@pytest.mark.parametrize("name, freq", [("arty", "90e6"), ("ecpix5", "1e12")])
def test_clock_is_refused_in_one_line(name, freq):
    done = python_target(name, "--build", f"--sys-clk-freq={freq}")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr == f"targets/{name}.py: --sys-clk-freq {float(freq):g}: {clocks_of(name).refusal(float(freq))}\n"


@pytest.mark.parametrize("name", ["arty", "ecpix5"])
def test_nearest_clocks_work(name):
    clocks = clocks_of(name)
    for freq in (51.3e6, 83e6, 90e6):
        for near in clocks.nearest(freq):
            assert clocks.refusal(float(option(near))) is None, (freq, near)
    assert clocks.refusal(importlib.import_module(f"targets.{name}").SYS_CLK_FREQ) is None


def test_clock_of_the_documents_works():
    """Every clock that a page names is one that both boards can make, or that board alone whose row it stands in."""
    text   = (ROOT/"docs"/"boards.md").read_text()
    named  = re.findall(r"--sys-clk-freq ([\d.e]+)", text)
    clocks = [importlib.import_module(f"targets.{name}").clocks() for name in ("arty", "ecpix5")]
    assert named and all(any(board.refusal(float(freq)) is None for board in clocks) for freq in named), named


def test_refused_clock_is_one_that_litex_cannot_make():
    from targets import arty
    assert (not arty.clocks().makes(90e6) and arty.clocks().makes(87.5e6)
            and arty.clocks(with_ethernet=True).makes(100e6))

# Memories -----------------------------------------------------------------------------------------

def test_every_memory_has_a_style_that_vivado_knows(design, tmp_path):
    """Of the generated Verilog as Yosys reads it: the core's, LiteX's and the CPU's; and as text, read with a clock or
    not."""
    _, out, build_name, _ = design
    gateware = out/"gateware"
    found    = memories.find([gateware/name for name in ("llama2_core.v", "VexRiscv.v", f"{build_name}.v")], build_name,
                             tmp_path, gateware)
    assert len(found) > 60 and sum(memory.synchronous for memory in found) > 30
    assert [memory.name for memory in found if memory.synchronous and not memory.styled] == []
    for name in ("llama2_core.v", "VexRiscv.v", f"{build_name}.v"):
        text = (gateware/name).read_text()
        declarations = re.findall(r"^(.*)\n *((?:\(\*.*\*\) *)?reg +\[[^\]]+\] +[\w\\$.]+ *\[\d+:\d+\].*);", text, re.M)
        assert declarations
        for before, declaration in declarations:
            assert re.search(r'r[ao]m_style = "(block|distributed|registers)"', before + declaration), declaration


@pytest.mark.parametrize("design", ["arty"], indirect=True)
def test_block_ram_of_the_smallest_board(design, tmp_path):
    """As Vivado extends depths, flash and all; look-up tables and multipliers are what `make resources` recorded."""
    _, out, build_name, _ = design
    gateware = out/"gateware"
    found    = memories.find([gateware/name for name in ("llama2_core.v", "VexRiscv.v", f"{build_name}.v")], build_name,
                             tmp_path, gateware)
    assert 0 < sum(memory.block_rams for memory in found) <= 46

# DRAM ---------------------------------------------------------------------------------------------

WIDE = """
import sys
sys.argv[0] = "targets/wide.py"
from litedram.modules import MT41K128M16
from litedram.phy import s7ddrphy
from targets import arty
from soc import board

Plain = arty.BaseSoC

class BaseSoC(Plain):
    # The same board as if its DDR3 were twice as wide: LiteDRAM's controller has words of 256 bits.
    def add_dram(self, phy, module, size=None):
        phy.settings.dfi_databits *= 2
        return Plain.add_dram(self, phy, module, size)

arty.BaseSoC = BaseSoC
sys.exit(arty.main())
"""


def test_controller_wider_than_the_port_is_refused_in_one_line(tmp_path):
    (tmp_path/"wide.py").write_text(WIDE)
    done = subprocess.run([sys.executable, str(tmp_path/"wide.py"), "--build", "--no-compile", "--output-dir",
                           str(tmp_path/"out")], cwd=ROOT,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, capture_output=True)
    assert done.returncode == 1
    assert "the DRAM controller's words have 256 bits, the core's ports 128" in last_line(done)


def test_etherbone_is_refused_where_it_does_not_fit():
    done = python_target("arty", "--variant", "a7-35", "--with-etherbone", "--build")
    assert done.returncode == 2 and "use --variant a7-100" in last_line(done)
