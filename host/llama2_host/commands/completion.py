"""Print what makes a shell complete commands and options: `eval "$(llama2-host completion bash)"`."""
import argparse

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS)


def run(args: argparse.Namespace) -> int:
    import argcomplete
    print(argcomplete.shellcode(["llama2-host"], shell=args.shell))
    return 0
