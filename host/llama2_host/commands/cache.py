"""Show what the cache of conversions and devices' metadata holds, or clear it."""
import argparse
import json
import time

from llama2_host.image import cache
from llama2_host.commands import options
from llama2_host.errors import HostError
from llama2_host.image.model import Model
from llama2_host.progress import Progress, quantity


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("show", "clear"), default="show", help="(default %(default)s)")
    parser.add_argument("--clear", action="store_true", help="the same as clear")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    if args.clear or args.action == "clear":
        if args.json:
            raise HostError("--json shows what the cache holds, and clear shows nothing: leave one out")
        count, size = cache.clear()
        Progress.stderr().note(f"removed {count} {'entry' if count == 1 else 'entries'} with {quantity(size)} from "
                               f"{cache.cache_directory()}")
        return 0
    facts = describe()
    options.show([json.dumps(facts)] if args.json else lines(facts))
    return 0


def describe() -> dict:
    """The cache's folder, its limit and its entries, the last used first."""
    entries = [{"file": entry.path.name, "bytes": entry.bytes, "used": int(entry.used_s), "holds": _holds(entry.path)}
               for entry in reversed(cache.entries())]
    return {"directory": str(cache.cache_directory()), "bytes": sum(entry["bytes"] for entry in entries),
            "limit_bytes": cache.limit_bytes(), "entries": entries}


def _holds(path) -> str:
    """The origin and formats of an entry."""
    if path.suffix != ".llm":
        return "a device's tokenizer and template"
    try:
        image = Model.load(path).image
        return f"{image.provenance or 'an image'}, {options.weights(image)}"
    except HostError:
        return "damaged: it is made anew when it is asked for"


def lines(facts: dict) -> list[str]:
    """The cache's content as lines for people."""
    shown = [f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(entry['used']))}  {quantity(entry['bytes']):>10}  "
             f"{entry['holds']}"
             for entry in facts["entries"]]
    return [f"{facts['directory']}: {len(shown)} {'entry' if len(shown) == 1 else 'entries'}, "
            f"{quantity(facts['bytes'])} of at most {quantity(facts['limit_bytes'])} ({cache.SIZE_VARIABLE}); "
            "`llama2-host cache clear` removes them", *shown]
