"""Runs pytest again and again without importing what never changes: each run is a fork of a process that has pytest,
Amaranth and NumPy already.

``python -m bench.mutant_server`` reads lines of JSON, each with the ``arguments`` and the ``environment`` of a run, and
answers each with pytest's exit status, or the negative number of the signal that ended it.
"""
import json
import os
import sys

#: What most tests import and no mutant changes. The project's own modules are imported after the fork.
LASTING = ("ctypes", "numpy", "pytest", "amaranth.hdl", "amaranth.lib.data", "amaranth.lib.fifo", "amaranth.lib.memory",
           "amaranth.lib.stream", "amaranth.lib.wiring", "amaranth.sim", "amaranth.back.rtlil", "serial", "subprocess")


def run(arguments: list[str], environment: dict[str, str]) -> int:
    """pytest's exit status, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        status = 3                              # pytest's own for an internal error
        try:
            os.environ.update(environment)
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            import pytest
            status = int(pytest.main(arguments))
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(ended)


def main():
    for name in LASTING:
        __import__(name)
    for line in sys.stdin:
        asked = json.loads(line)
        print(run(asked["arguments"], asked["environment"]), flush=True)


if __name__ == "__main__":
    main()
