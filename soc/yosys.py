"""Gives pyosys, which has no command line, the part of Yosys' that LiteX's scripts use: ``yosys -l LOG SCRIPT``."""
import argparse
import sys


def main(argv=None):
    parser = argparse.ArgumentParser(prog="yosys")
    parser.add_argument("-q", dest="quiet", action="store_true")
    parser.add_argument("-Q", dest="banner", action="store_false")
    parser.add_argument("-l", dest="log")
    parser.add_argument("script")
    args = parser.parse_args(argv)
    from pyosys import libyosys
    tee = ["tee"] + ["-q"]*args.quiet + (["-o", args.log] if args.log else [])
    command = ["script", args.script]
    libyosys.Design().run_pass(" ".join((tee + command) if len(tee) > 1 else command))    # ends the process on errors
    return 0

if __name__ == "__main__":
    sys.exit(main())
