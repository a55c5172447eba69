"""Gives callers the one error that a checkpoint file can raise."""

from llama2_host.errors import HostError


class CheckpointError(HostError, ValueError):
    """One line: what is wrong with the file, what was expected, what to try."""
