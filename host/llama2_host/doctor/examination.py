"""Examines a board from the port to the answer: does every step that it can, and says what prevents the others."""
from dataclasses import dataclass
from typing import TextIO

from llama2_host.device.device import BOOT_TRIES, Device
from llama2_host.device.link import DeviceError
from llama2_host.device.transport import DEFAULT_BAUD
from llama2_host.doctor import line, steps
from llama2_host.doctor.report import Report, Step, Verdict, failed
from llama2_host.errors import HostError
from llama2_host.progress import Progress
from llama2_host.version import version
from llama2_spec.protocol import VERSION, Status

MEMORY_BYTES = 1 << 32          #: all of it: a quarter of a second on a board
STREAM_BYTES = 64 << 20
SIM_MEMORY_BYTES = 2 << 20      #: a simulation is three hundred times slower
SIM_STREAM_BYTES = 1 << 20
SIM_ROUNDS = 2


@dataclass(frozen=True)
class Wishes:
    """What to examine. ``memory_bytes`` None stands for the usual amount of a board or a simulator, ``whole`` tests
    every byte, ``force`` replaces a model."""
    memory_bytes: int | None = None
    whole: bool = False
    force: bool = False


def examine(port: str, wishes: Wishes = Wishes(), *, baud: int = DEFAULT_BAUD, trace: TextIO | None = None,
            hello_tries: int = BOOT_TRIES, wait_s: float = 0.0, progress: Progress = Progress.silent,
            tell=lambda step: None) -> Report:
    """Examine the device on ``port``; calls ``tell(step)`` at the end of each step."""
    report = Report(f"llama2-host {version()}, protocol {VERSION}, {port}")

    def add(step: Step) -> Step:
        tell(report.add(step))
        return step
    if add(steps.access(port)).verdict == Verdict.FAILED:
        return report
    try:
        device = Device.open(port, baud=baud, trace=trace, wait_s=wait_s, hello_tries=hello_tries, progress=progress)
    except HostError as error:
        add(failed("hello", str(error), "no answer", advice="docs/boards.md, Nothing answers: what the LEDs say"))
        return report
    with device:
        _look(device, wishes, report, add, progress)
    return report


def _look(device: Device, wishes: Wishes, report: Report, add, progress: Progress) -> None:
    add(steps.greeting(device))
    try:
        board = device.board()
    except DeviceError as error:
        old = error.status == Status.BAD_OPCODE
        add(failed("board", "the firmware is older than this client" if old else str(error),
                   "old firmware" if old else "refused",
                   advice=steps.OLD_FIRMWARE))
        return
    except HostError as error:
        add(failed("board", str(error), "no answer"))
        return
    report.simulated = bool(board.simulated)
    quick = report.simulated
    add(steps.geometry(device, board))
    came_up = add(steps.start(board)).verdict == Verdict.OK
    add(steps.guarded("training", steps.training, device, board))
    size = wishes.memory_bytes or (SIM_MEMORY_BYTES if quick else MEMORY_BYTES)
    add(steps.guarded("memory", steps.memory, device, board, size, wishes.whole, progress))
    if came_up:
        add(steps.guarded("stream", steps.stream, device, board, SIM_STREAM_BYTES if quick else STREAM_BYTES))
        add(steps.guarded("known answer", steps.answer, device, board, wishes.force, progress))
    else:
        add(steps.skipped("stream", "there is no DRAM to read"))
        add(steps.skipped("known answer", "there is no DRAM for a model"))
    add(steps.guarded("link", steps.link, device, SIM_ROUNDS if quick else line.ROUNDS))
    add(steps.guarded("flash", steps.flash, device, board))
