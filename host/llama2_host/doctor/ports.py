"""Lists the serial ports of this machine, describes them by their USB ids, and says what keeps a user from one."""
import os
import stat
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from llama2_host.errors import HostError

VARIABLE = "LLAMA2_HOST_PORT"
RULES = "70-llama2-host.rules"
RULES_FOLDERS = (Path("/etc/udev/rules.d"), Path("/usr/lib/udev/rules.d"), Path("/lib/udev/rules.d"))


@dataclass(frozen=True)
class Bridge:
    """A USB chip that boards carry. ``uart`` is its channel that the serial line is on; None: it has one."""
    vid: int
    pid: int
    name: str
    uart: int | None = None


#: Both boards' chip is an FT2232H: channel A is JTAG, channel B the serial line.
BRIDGES = (Bridge(0x0403, 0x6010, "FT2232H, as on Arty A7 and ECPIX-5", 1), Bridge(0x0403, 0x6011, "FT4232H"),
           Bridge(0x0403, 0x6014, "FT232H"), Bridge(0x0403, 0x6001, "FT232R"), Bridge(0x10c4, 0xea60, "CP210x"),
           Bridge(0x1a86, 0x7523, "CH340"))


@dataclass(frozen=True)
class Port:
    """A serial port. ``channel`` counts those of one chip; ``role`` is "serial line", "JTAG" or "unknown"."""
    device: str
    vid: int | None = None
    pid: int | None = None
    serial_number: str | None = None
    product: str | None = None
    location: str | None = None
    channel: int = 0
    chip: str | None = None
    role: str = "unknown"

    def to_json(self) -> dict:
        return asdict(self)

    def cells(self) -> tuple[str, ...]:
        """A row of a table."""
        ids = f"{self.vid:04x}:{self.pid:04x}" if self.vid is not None and self.pid is not None else ""
        return self.device, ids, self.serial_number or "", self.chip or self.product or "", self.role

    def line(self) -> str:
        ids = f"{self.vid:04x}:{self.pid:04x}" if self.vid is not None and self.pid is not None else "no USB"
        serial = f", serial number {self.serial_number}" if self.serial_number else ""
        return f"{self.device}  {ids}{serial}  {self.chip or self.product or 'unknown'}: {self.role}"


def ports(found=None) -> list[Port]:
    """All serial ports, in the order of their names."""
    if found is None:
        from serial.tools import list_ports
        found = list_ports.comports()
    chips: dict[tuple, int] = {}
    made = []
    for port in sorted(found, key=_order):
        chip = (port.vid, port.pid, port.serial_number, (port.location or "").partition(":")[0])
        channel = _channel(port.location)
        if channel is None:
            channel = chips.get(chip, 0)
        chips[chip] = channel + 1
        made.append(_known(port, channel))
    return made


def _order(port) -> tuple:
    """ttyUSB2 before ttyUSB10."""
    name = port.device.rstrip("0123456789")
    return name, int(port.device[len(name):] or 0)


def _channel(location: str | None) -> int | None:
    """Linux names the interface at the end of the location: 1-2:1.1 is the second."""
    end = (location or "").rpartition(".")[2]
    return int(end) if ":" in (location or "") and end.isdigit() else None


def _known(port, channel: int) -> Port:
    bridge = next((one for one in BRIDGES if (one.vid, one.pid) == (port.vid, port.pid)), None)
    role = "unknown" if bridge is None else "serial line" if bridge.uart in (None, channel) else "JTAG"
    return Port(port.device, port.vid, port.pid, port.serial_number, port.product, port.location, channel,
                bridge.name if bridge else None, role)


def candidates(all_ports: list[Port]) -> list[Port]:
    """Those that a board's serial line may be on: not JTAG, and known chips only where there are any."""
    lines = [port for port in all_ports if port.role == "serial line"]
    return lines or [port for port in all_ports if port.role != "JTAG" and port.vid is not None]


def obstacle(device: str) -> tuple[str, str, str] | None:
    """The obstacle that keeps this user from a port, found before it is opened: (fault, what happened, what to try)."""
    if "://" in device or not device.startswith("/"):
        return None
    try:
        told = os.stat(device)
    except OSError as error:
        there = ", ".join(port.device for port in ports()) or "none"
        return "no port", f"{device}: {error.strerror}", f"plug the board in; serial ports of this machine: {there}"
    if not stat.S_ISCHR(told.st_mode):
        return "no port", f"{device} is no device", "name a serial port, see llama2-host devices"
    if os.access(device, os.R_OK | os.W_OK):
        return None
    mode = stat.S_IMODE(told.st_mode)
    return "no permission", f"{device} belongs to group {_group(told.st_gid)}, mode {mode:o}, and you may not use it", \
        (f"sudo cp {rules_file()} /etc/udev/rules.d/ && sudo udevadm control --reload && sudo udevadm trigger, "
         f"or: sudo usermod -aG {_group(told.st_gid)} $USER, and log in again")


def _group(gid: int) -> str:
    try:
        import grp
        return grp.getgrgid(gid).gr_name
    except (ImportError, KeyError):
        return str(gid)


def rules_file() -> Path:
    """The udev rules that this package brings along."""
    return Path(__file__).with_name(RULES)


def rules_installed() -> bool | None:
    """Returns whether the rules are installed; None on a system without udev."""
    if sys.platform != "linux":
        return None
    return any((folder / RULES).exists() for folder in RULES_FOLDERS)


def chosen(port: str | None) -> str | None:
    """The port that was named: on the command line, or by LLAMA2_HOST_PORT."""
    return port or os.environ.get(VARIABLE) or None


def discover(answers, all_ports: list[Port] | None = None) -> str:
    """The one port that a board answers at; ``answers(device)`` tries one. Raises one line where none does, or
    several."""
    tried = candidates(ports() if all_ports is None else all_ports)
    found = [port for port in tried if answers(port.device)]
    if len(found) == 1:
        return found[0].device
    if found:
        names = "; ".join(f"{port.device}{f' (serial number {port.serial_number})' if port.serial_number else ''}"
                          for port in found)
        raise HostError(f"several boards answer: {names}: choose one with --port, or set {VARIABLE}")
    looked = ", ".join(port.device for port in tried)
    if tried:
        raise HostError(f"no board answers at {looked}: llama2-host doctor --port {tried[0].device} says why")
    raise HostError("no serial port of a board was found: plug it in, name a port with --port, or use --sim or "
                    "--golden")
