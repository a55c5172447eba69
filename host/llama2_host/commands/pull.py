"""Fetch a model from Hugging Face: only the files that are needed, checked, and resumed where it stopped."""
import argparse
import json
from pathlib import Path

from llama2_host.commands import options
from llama2_host.progress import Progress, quantity
from llama2_host.pull import pull


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repository", metavar="ORG/NAME", help="the model's name on the hub")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER",
                        help="where it goes (default: a folder NAME here)")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit (default: the newest)")
    parser.add_argument("--file", metavar="NAME", help="of several GGUF files or checkpoints, this one")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    progress = Progress.stderr()
    folder = args.output or Path(args.repository.rpartition("/")[2])
    pulled = pull(args.repository, folder, revision=args.revision, file=args.file, progress=progress)
    size = sum(file.size for file in pulled.files)
    if args.json:
        options.show([json.dumps({"model": str(pulled.model), "commit": pulled.commit, "bytes": size,
                                  "files": [file.name for file in pulled.files]})])
    else:
        options.show([str(pulled.model)])
        progress.note(f"{quantity(size)} in {len(pulled.files)} files, each with the hub's hash: llama2-host chat "
                      f"--golden --model {pulled.model}")
    return 0
