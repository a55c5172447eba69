"""Says on stderr how far a build of the simulator is, while everything that the build prints goes to its log."""
import os
import threading
import time
from pathlib import Path


class BuildProgress:
    """A context in which a thread looks into ``objects``, the folder of Verilator's output, once a second.

    On a terminal the line is rewritten; elsewhere there is one line per step. It keeps a copy of stderr, so it may be
    entered before the process's output is sent elsewhere.
    """
    def __init__(self, objects: Path):
        self.objects, self._begin_s = objects, time.time()
        self._stop, self._thread, self._said = threading.Event(), threading.Thread(target=self._watch, daemon=True), ""

    def __enter__(self):
        self._fd = os.dup(2)
        self._tty = os.isatty(self._fd)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        if self._tty and self._said:
            os.write(self._fd, b"\n")
        os.close(self._fd)

    def step(self) -> tuple[str, str]:
        """The present step, and how much of it is done."""
        if not self.objects.exists() or self.objects.stat().st_mtime < self._begin_s - 1:
            return "generating gateware, compiling firmware", ""
        sources = sum(1 for path in self.objects.glob("Vsim*.cpp"))
        if not (self.objects/"Vsim.mk").exists():
            return "translating the gateware to C++ (Verilator)", ""
        done = sum(1 for path in self.objects.glob("Vsim*.o"))
        part = f"{min(done, sources)} of {sources} files"
        if any(self.objects.glob("*.gcda")) or any(self.objects.glob("*.profraw")):
            return "compiling it for what the first run did", part
        if (self.objects/"training.log").exists():
            return "running it once, for a profile", ""
        return "compiling it", part

    def _watch(self):
        while not self._stop.wait(1):
            try:
                step, part = self.step()
            except OSError:                 # the folder is being replaced
                continue
            line = f"  {step}{' ' + part if part else ''}, {time.time() - self._begin_s:.0f} s"
            if self._tty:
                os.write(self._fd, f"\r{line:<78}".encode())
            elif step != self._said:
                os.write(self._fd, f"  {step}\n".encode())
            self._said = step
