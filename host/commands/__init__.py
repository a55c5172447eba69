"""The commands of ``llama2-host``: modules with ``add_arguments(parser)`` and ``run(args)``."""
from host.commands import chat, convert, generate, info, load, stats

COMMANDS = {"generate": generate, "chat": chat, "convert": convert, "info": info, "load": load, "stats": stats}
