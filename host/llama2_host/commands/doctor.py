"""Find out, step by step, why a board does not answer, or whether it is in order; the report is made to be pasted into
an issue."""
import argparse
import json
import sys

from llama2_host import screen, sizes
from llama2_host.commands import options
from llama2_host.connection import SIMULATOR_HELLO_TRIES
from llama2_host.device.link import trace_to_stderr
from llama2_host.device.simulator import Simulator
from llama2_host.device.transport import DEFAULT_BAUD
from llama2_host.doctor import known
from llama2_host.doctor.examination import Wishes, examine
from llama2_host.doctor.report import Report, Step, Verdict
from llama2_host.errors import HostError
from llama2_host.files import temporary_file
from llama2_host.progress import Progress
from llama2_host.terminal import filter_for
from llama2_spec.simulation import DRAM_FAULTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_device(parser, hurries=False, models=False)
    parser.add_argument("--dram-fault", choices=DRAM_FAULTS,
                        help="with --sim: plant a fault in the simulated DRAM, to see it found")
    parser.add_argument("--memory", metavar="SIZE",
                        help="test so much of DRAM, for example 64MiB (default: all of it; in simulation 2 MiB)")
    parser.add_argument("--whole", action="store_true", help="test every byte of that, not a place in every row")
    parser.add_argument("--force", action="store_true", help="replace the device's model by the known answer's")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    options.check(args)
    if not (args.port or args.sim):
        raise HostError("doctor needs to know whom to look at: --port URL, --sim, or plug a board in")
    wishes = Wishes(size(args.memory) if args.memory is not None else None, args.whole, args.force)
    tell = (lambda step: None) if args.json else show
    progress = Progress.silent if args.json else Progress.stderr()
    if args.sim:
        report = of_simulation(args, wishes, tell)
    else:
        report = examine(args.port, wishes, baud=args.baud or DEFAULT_BAUD, trace=trace_to_stderr(args.trace),
                         progress=progress, tell=tell)
    options.show([json.dumps(report.to_json())] if args.json else [report.heading, report.end()])
    return 1 if report.failed else 0


def of_simulation(args: argparse.Namespace, wishes: Wishes, tell) -> Report:
    """The simulated SoC with the known answer's model in its memory; its DRAM is trained as a board's is."""
    arguments = ["--dram-train", *(["--dram-fault", args.dram_fault] if args.dram_fault else [])]
    image = temporary_file(known.known_image(), ".llm")
    with Simulator(image, arguments=tuple(arguments), progress=Progress.stderr()) as simulator:
        return examine(simulator.url, wishes, trace=trace_to_stderr(args.trace), wait_s=5.0,
                       hello_tries=SIMULATOR_HELLO_TRIES, tell=tell)


STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "bold red", Verdict.SKIPPED: "dim"}


def show(step: Step) -> None:
    """Print a step at its end, with its verdict in colour."""
    verdict = step.verdict.value
    made = filter_for(sys.stdout)
    first, *more = (made(one.replace("\n", " ")) for one in step.lines())
    options.print_lines([screen.styled(first[:len(verdict)], STYLES[step.verdict]) + first[len(verdict):], *more])
    sys.stdout.flush()


def size(text: str) -> int:
    """Bytes of ``64MiB``."""
    value = sizes.parse(text)
    if value is None or value < 1 << 12:
        raise HostError(f"--memory {text}: expected a size of 4KiB or more, for example 64MiB")
    return value
