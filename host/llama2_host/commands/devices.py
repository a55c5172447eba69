"""List this machine's serial ports: their USB ids, serial numbers, and which of a board's is its serial line."""
import argparse
import json

from llama2_host import screen
from llama2_host.commands import options
from llama2_host.doctor import ports
from llama2_host.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    found = ports.ports()
    named = ports.chosen(None)
    if args.json:
        options.show([json.dumps({"ports": [port.to_json() for port in found], "chosen": named,
                                  "udev_rules": ports.rules_installed()})])
        return 0
    options.print_lines(screen.table(("port", "USB", "serial number", "chip", "is"), [port.cells() for port in found])
                        if found else ["no serial ports: is the board plugged in?"])
    progress = Progress.stderr()
    if named:
        progress.note(f"{ports.VARIABLE} names {named}")
    if ports.rules_installed() is False:
        progress.note(f"the udev rules are not installed: sudo cp {ports.rules_file()} /etc/udev/rules.d/")
    return 0
