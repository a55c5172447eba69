"""The boards' targets: one configuration, firmware in ROM, pins that exist, and refusals instead of surprises."""
import importlib
import os
import re
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from soc import configuration

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

TARGETS = {    # name of the target: options, build name, constraints; compiling for one board is enough for the tests' time
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


def test_configuration_names_all_of_the_cores_parameters():
    core = configuration.create_core()
    public = {k: v for k, v in vars(core).items() if isinstance(v, int) and not k.startswith("_")}
    assert public == configuration.PARAMETERS

# Generated designs --------------------------------------------------------------------------------

@pytest.fixture(scope="module", params=TARGETS)
def design(request):
    """(name, directory of the gateware, build name, suffix of the constraints), generated with the firmware."""
    options, build_name, suffix = TARGETS[request.param]
    out = ROOT/"build"/"tests"/request.param
    done = python_target(request.param, "--build", "--no-compile-gateware", "--output-dir", str(out), *options)
    assert done.returncode == 0, done.stderr[-2000:]
    return request.param, out, build_name, suffix


@pytest.mark.parametrize("design", ["arty"], indirect=True)
def test_rom_holds_the_firmware(design):
    _, out, build_name, _ = design
    firmware = (out/"software"/"firmware"/"firmware.bin").read_bytes()
    firmware += bytes(-len(firmware) % 4)
    words = [int(line, 16) for line in (out/"gateware"/f"{build_name}_rom.init").read_text().split()]
    assert len(firmware) > 10_000 and words[:len(firmware)//4] == list(struct.unpack(f"<{len(firmware)//4}I", firmware))
    assert not any(words[len(firmware)//4:])
    assert f'$readmemh("{build_name}_rom.init", rom)' in (out/"gateware"/f"{build_name}.v").read_text()


@pytest.mark.parametrize("design", ["arty"], indirect=True)
def test_firmware_trains_the_dram(design):
    """Beyond the simulator's firmware, whose sources it shares: LiteDRAM's training for the board's PHY."""
    _, out, _, _ = design
    symbols = subprocess.run(["riscv64-unknown-elf-nm", out/"software"/"firmware"/"firmware.elf"], check=True, text=True,
                             stdout=subprocess.PIPE).stdout
    assert {"device_poll", "llama2_interrupt", "sdram_init", "sdram_read_leveling"} <= set(re.findall(r" T (\w+)", symbols))


@pytest.mark.parametrize("design", ["arty"], indirect=True)
def test_bitstream_that_reaches_into_the_flashs_model_is_refused(design):
    _, out, build_name, _ = design
    offset    = importlib.import_module("targets.arty").MODEL_OFFSET["a7-35"]
    bitstream = out/"gateware"/f"{build_name}.bin"    # what LiteX would write to the flash
    with open(bitstream, "wb") as file:
        file.truncate(offset + 1)
    done = python_target("arty", "--flash", "--with-spi-flash", "--output-dir", str(out))
    bitstream.unlink()
    assert done.returncode == 1 and f"the flash's model begins at {offset}: build without --with-spi-flash" in last_line(done)


def located(text, suffix):
    """{top-level port: pin} of a constraints file."""
    pattern = {"xdc": r"set_property LOC (\w+) \[get_ports \{([^}]+)\}\]", "lpf": r'LOCATE COMP  ?"([^"]+)" SITE "(\w+)";'}[suffix]
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
    done = python_target("arty", "--toolchain", "openxc7", "--build", "--output-dir", str(tmp_path/"out"), *FAST, env=bare_path[1])
    assert done.returncode == 1 and "nextpnr-xilinx" in last_line(done) and "install the openXC7 toolchain" in last_line(done)
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
    load      = lambda *options: python_target("arty", "--load", "--output-dir", str(generated), *FAST, *options, env=env)
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


def test_etherbone_is_refused_where_it_does_not_fit():
    done = python_target("arty", "--variant", "a7-35", "--with-etherbone", "--build")
    assert done.returncode == 2 and "use --variant a7-100" in last_line(done)
