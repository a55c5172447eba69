"""The commands of ``llama2-host``: modules with ``add_arguments(parser)`` and ``run(args)``."""
from llama2_host.commands import cache, chat, compare, convert, generate, info, load, perplexity, stats

COMMANDS = {"generate": generate, "chat": chat, "convert": convert, "info": info, "load": load,
            "perplexity": perplexity,
            "compare": compare, "stats": stats, "cache": cache}
