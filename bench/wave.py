"""Prints signals of a VCD as a table, a line per clock cycle: ``python -m bench.wave FILE held room --cycles 4:12``,
without a viewer."""
import argparse
import re
import sys
from pathlib import Path

CLOCK = "clk"


def rows(path, wanted):
    """(cycle, values by name) before each rising edge of the first clock, which is what its registers take; numbers in
    hexadecimal.

    ``wanted`` are names, or the ends of paths such as ``queue.level``; SystemExit names one that is not there.
    """
    scopes, paths, values, codes, clock, cycle = [], {}, {}, None, None, 0
    for line in path.read_text().splitlines():
        words = line.split()
        match words:
            case ["$scope", _, name, _]:
                scopes.append(name)
            case ["$upscope", *_]:
                scopes.pop()
            case ["$var", _, _, at, name, *_]:
                paths.setdefault(".".join([*scopes, name]), at)
            case ["$enddefinitions", *_]:
                codes, clock = {name: code(paths, name) for name in wanted}, code(paths, CLOCK)
            case [change] if codes is not None and change[0] in "01xz":
                if change == f"1{clock}" and values.get(clock) == "0":
                    yield cycle, {name: values.get(at, "") for name, at in codes.items()}
                    cycle += 1
                values[change[1:]] = change[0]
            case [change, at] if codes is not None and change[0] in "bs":
                values[at] = f"{int(change[1:], 2):x}" if re.fullmatch("b[01]+", change) else change[1:]


def code(paths, name):
    """Identifier code of the signal with the shortest path that ends in ``name``."""
    found = [path for path in paths if f".{path}".endswith(f".{name}")]
    if not found:
        near = (sorted({path.rpartition(".")[2] for path in paths if name.rpartition(".")[2] in path})
                or sorted(p.rpartition(".")[2] for p in paths))
        raise SystemExit(f"bench.wave: no signal {name}; there are {', '.join(near[:12])}")
    return paths[min(found, key=len)]


def cycles(text):
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r}: expected A:B, as in 4:12")
    return range(int(first), int(last) + 1)


def main():
    parser = argparse.ArgumentParser(prog="python -m bench.wave", description=__doc__)
    parser.add_argument("file", type=Path, help="a VCD, as make wave writes it")
    parser.add_argument("signals", nargs="+", help="names, or ends of paths as in queue.level")
    parser.add_argument("--cycles", type=cycles, default=range(sys.maxsize), metavar="A:B", help="these only (all)")
    args = parser.parse_args()
    try:
        for number, (cycle, values) in enumerate(rows(args.file, args.signals)):
            if number == 0:
                print("cycle", *args.signals)
            if cycle in args.cycles:
                print(f"{cycle:5}", *(f"{values[name]!s:>{len(name)}}" for name in args.signals))
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"bench.wave: cannot read {args.file}: {error}") from None
    except BrokenPipeError:
        sys.stderr.close()


if __name__ == "__main__":
    main()
