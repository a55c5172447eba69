# PYTHON_ARGCOMPLETE_OK
"""The command ``llama2-host``: parses, calls the library, prints. Errors are one line on stderr and a non-zero exit."""
import argparse
import codecs
import os
import signal
import sys
import time

from llama2_host.errors import INTERRUPTED, HostError, Terminated
from llama2_host.terminal import line

MESSAGES: dict[int, str] = {signal.SIGTERM: "terminated",
                            **({signal.SIGHUP: "hung up"} if hasattr(signal, "SIGHUP") else {})}


class Parser(argparse.ArgumentParser):
    """An argument parser for which a text that begins with a dash can be the value of the option before it."""

    def error(self, message: str):
        super().error(line(message))

    def parse_known_args(self, args=None, namespace=None):
        return super().parse_known_args(self._joined(list(sys.argv[1:] if args is None else args)), namespace)

    def _joined(self, arguments: list[str]) -> list[str]:
        """``-i "-Once"`` as ``--prompt=-Once``, unless what follows is an option itself."""
        joined: list[str] = []
        while arguments:
            argument = arguments.pop(0)
            if argument == "--":
                return [*joined, argument, *arguments]
            action = self._named(argument)
            takes_one = action is not None and action.nargs is None and action.type not in (int, float)
            if action is not None and takes_one and arguments and arguments[0][:1] == "-" and len(arguments[0]) > 1 \
                    and self._named(arguments[0].partition("=")[0]) is None:
                argument = f"{action.option_strings[-1]}={arguments.pop(0)}"
            joined.append(argument)
        return joined

    def _named(self, text: str) -> argparse.Action | None:
        """The option of this name, or of a name that begins so and is the only one."""
        if text in self._option_string_actions:
            return self._option_string_actions[text]
        found = {id(action): action for name, action in self._option_string_actions.items()
                 if text[:2] == "--" and len(text) > 2 and name.startswith(text)}
        return next(iter(found.values())) if len(found) == 1 else None


def create_parser() -> argparse.ArgumentParser:
    from llama2_host.commands import COMMANDS
    from llama2_host.version import version
    parser = Parser(prog="llama2-host", description="LLaMA-2 models on an FPGA, its simulation or its "
                    "integer model.", epilog="`llama2-host COMMAND --help` lists a command's options.")
    parser.add_argument("--version", action="version", version=f"llama2-host {version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        summary = (command.__doc__ or "").split("\n", 1)[0]
        added = commands.add_parser(name, help=summary, description=summary)
        command.add_arguments(added)
        loudness = added.add_mutually_exclusive_group()
        loudness.add_argument("-q", "--quiet", action="store_true", help="nothing on stderr but errors")
        loudness.add_argument("-v", "--verbose", action="store_true", help="details on stderr, too")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status."""
    _open_streams()
    try:
        _obey_signals()
        status = _run(arguments)
        sys.stdout.flush()
        return status
    except HostError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        _complain("interrupted", prefix="\n")
        return INTERRUPTED
    except Terminated as end:
        _complain(MESSAGES.get(end.signal, "terminated"), prefix="\n")
        return 128 + end.signal
    except BrokenPipeError:
        # The reader of our output has left.
        _discard(sys.stdout, sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "llama2_host").partition(".")[0] in ("llama2_host", "llama2_spec"):
            raise                                   # a bug of ours
        return _complain(f"the Python package {error.name} is missing: `pip install .` in the clone, or `make setup` "
                         "and .venv/bin/python")
    except OSError as error:
        return _complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    finally:
        _flush()


def _run(arguments: list[str] | None) -> int:
    from llama2_host.commands import COMMANDS
    from llama2_host.progress import Progress
    from llama2_host.screen import Verbosity, set_verbosity
    parser, start_s = create_parser(), time.monotonic()
    if "_ARGCOMPLETE" in os.environ:                # a shell asks what may come next; this ends the process
        import argcomplete
        argcomplete.autocomplete(parser)
    try:
        args = parser.parse_args(arguments)
    except SystemExit as end:                       # after --help, --version or a wrong command line
        return int(end.code or 0)
    set_verbosity(Verbosity.QUIET if args.quiet else Verbosity.VERBOSE if args.verbose else Verbosity.NORMAL)
    try:
        return COMMANDS[args.command].run(args) or 0
    finally:
        Progress.stderr().detail(f"{args.command} took {time.monotonic() - start_s:.1f} s")
        set_verbosity(Verbosity.NORMAL)             # of a caller that goes on: main() may be called again


def _complain(text: str, prefix: str = "llama2-host: ") -> int:
    try:
        print(f"{prefix}{line(text)}", file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)
    return 1


def _open_streams() -> None:
    """Open standard streams that the shell closed, and make all take any text whatever the locale."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:                         # so that no file or socket that is opened later takes its number
                os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, Closed() if name == "stdout" else open(os.devnull, mode))
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")
    if hasattr(sys.stdin, "reconfigure") and codecs.lookup(sys.stdin.encoding).name == "ascii":
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")   # a locale that says nothing: text is UTF-8 nowadays


class Closed:
    """Stands for a standard output that is closed: the first text ends the command in one line."""
    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise HostError("standard output is closed: nobody would see the answer")

    def flush(self) -> None:
        """Nothing was written."""

    def isatty(self) -> bool:
        return False


def _obey_signals() -> None:
    """SIGTERM and a lost terminal end a command as Ctrl-C does: what was half written is removed, what was started
    ends."""
    def end(number, frame):
        raise Terminated(number)
    try:
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            # A script's background job starts like this; left so, neither Ctrl-C nor kill -INT would end an answer.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in MESSAGES:
            if signal.getsignal(number) == signal.SIG_DFL:      # else: nohup
                signal.signal(number, end)
    except ValueError:
        pass                                        # not the main thread, which has them


def _flush() -> None:
    """Write what is left now: the interpreter would complain about a full disk or a closed pipe later."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _discard(stream)


def _discard(*streams) -> None:
    for stream in streams:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except (OSError, ValueError, AttributeError):
            pass                                    # of a test, or none at all


if __name__ == "__main__":
    sys.exit(main())
