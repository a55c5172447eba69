"""The commands of ``llama2-host``: modules with ``add_arguments(parser)`` and ``run(args)``."""
from llama2_host.commands import (bench, cache, chat, compare, completion, convert, devices, doctor, generate, info,
                                  load, perplexity,
                                  pull, serve, stats)

COMMANDS = {"generate": generate, "chat": chat, "convert": convert, "info": info, "load": load, "pull": pull,
            "perplexity": perplexity,
            "compare": compare, "serve": serve, "bench": bench, "stats": stats, "doctor": doctor, "devices": devices,
            "cache": cache,
            "completion": completion}
