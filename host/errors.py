"""The root of every error that ends a command with one line and a non-zero exit."""


class HostError(Exception):
    """What happened, what was expected and what to try, in one line."""
