"""The command ``llama2-host``: parses, calls the library, prints. Errors are one line on stderr and a non-zero exit."""
import argparse
import os
import signal
import sys

from host.errors import INTERRUPTED, HostError


def create_parser() -> argparse.ArgumentParser:
    from host.commands import COMMANDS
    parser = argparse.ArgumentParser(prog="llama2-host", description="LLaMA-2 models on an FPGA, its simulation or its "
                                     "integer model.", epilog="`llama2-host COMMAND --help` lists a command's options.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        summary = command.__doc__.split("\n", 1)[0]
        command.add_arguments(commands.add_parser(name, help=summary, description=summary))
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status."""
    from host.commands import COMMANDS
    args = create_parser().parse_args(arguments)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # A script's background job starts like this; left so, neither Ctrl-C nor kill -INT would end an answer.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return COMMANDS[args.command].run(args) or 0
    except HostError as error:
        print(f"llama2-host: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left; keep the interpreter from complaining while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"llama2-host: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
