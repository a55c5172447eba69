"""Show a device's counters since the last reset, phase by phase."""
import argparse
import json
import sys

from llama2_host import screen
from llama2_host.commands import options
from llama2_host.device.device import Device
from llama2_host.errors import HostError
from llama2_host.device.link import trace_to_stderr
from llama2_host.device.restart import explain_restart
from llama2_host.statistics import phase_counters, saturations
from llama2_host.device.transport import DEFAULT_BAUD
from llama2_spec.registers import Counter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_device(parser, local=False, hurries=False)
    parser.add_argument("--verify", action="store_true", help="have the core check the model in memory against its "
                                                              "CRCs first")
    parser.add_argument("--reset", action="store_true", help="set the counters to zero afterwards")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    options.find_port(args)
    if args.port is None:
        raise HostError("stats needs --port URL: the board or running simulator to ask")
    options.check(args)
    with Device.open(args.port, baud=args.baud or DEFAULT_BAUD, trace=trace_to_stderr(args.trace)) as device:
        if args.verify:
            device.require_model()
            verified = device.verify()
            print(f"the model in memory is undamaged (CRC {verified.crc:#010x}, {verified.cycles:,} cycles)",
                  file=sys.stderr if args.json else sys.stdout)
        stats = device.stats()
        if args.json:
            options.show([json.dumps(to_json(stats))])
        else:
            first, *more = lines(device.info, stats)
            options.show([first])
            options.print_lines(table(stats))
            options.show(more)
        if args.reset:
            device.reset()
    return 0


def to_json(stats) -> dict:
    values = {name: getattr(stats, name) for name in stats.__dataclass_fields__ if name != "counters"}
    return values | {"errors": saturations(stats.errors), "phases": phase_counters(stats)}


def table(stats) -> list[str]:
    """The counters, for people."""
    names = [counter.name.lower() for counter in Counter]
    return screen.table(("phase", *names), [(phase, *(f"{counters[name]:,}" for name in names))
                                            for phase, counters in phase_counters(stats).items()])


def lines(info, stats) -> list[str]:
    """Lines to be shown beside the table."""
    dropped = stats.dropped / 2 ** 32 / stats.draws if stats.draws else 0.0
    return [
        f"{info.firmware}, {info.clock_hz / 1e6:g} MHz, up {info.uptime / info.clock_hz:.1f} s; model: "
        f"{info.name or 'none'}",
        f"prompt tokens {stats.prompt_tokens:,}, generated {stats.tokens:,}, sampled {stats.draws:,} "
        f"(mean probability outside the candidates {dropped:.2e})",
        f"passes over the weights for them {stats.passes:,}, guessed for these {stats.guessed:,}",
        f"K/V beats stored {stats.stores:,}, interrupts {stats.interrupts:,}, frames damaged {stats.link_damaged:,}, "
        f"tokens sent again {stats.resent:,}",
        explain_restart(info.restart) or "began by power or by a reset from outside",
        "errors: " + (", ".join(saturations(stats.errors)) or "none"),
    ]
