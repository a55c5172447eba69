"""LiteX's C library, which every build compiles for itself: half a minute of a processor for the same functions."""
import shutil
from pathlib import Path

from soc.sim import compile as sim_compile

BUILDS = Path(__file__).resolve().parent.parent/"build"
LIBC   = Path("software")/"libc"
#: What LiteX's makefile finds made, and what it includes.
FILES  = ("cross.txt", "__libc.a", "picolibc.h")


def share(output_dir: Path) -> bool:
    """Copy the library of another simulator that is built, if there is one, into the folder of a build that has none;
    returns whether it was. They differ in the folders that stand in cross.txt only."""
    output_dir.mkdir(parents=True, exist_ok=True)
    with sim_compile.lock(output_dir):
        if (output_dir/LIBC/FILES[0]).exists():
            return False
        for built in sorted(BUILDS.glob(f"sim*/{LIBC}/libc.a")):
            other = built.parents[2]
            with sim_compile.lock(other, wait=False) as idle:
                if idle and all((other/LIBC/name).exists() for name in FILES):
                    (output_dir/LIBC).mkdir(parents=True)
                    for name in FILES:    # in this order: make looks at their times
                        shutil.copy(other/LIBC/name, output_dir/LIBC/name)
                    return True
    return False
