"""Python client of the decoder: ``connect`` for text, ``Device`` for one method per request of the wire protocol."""
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama2_host.connection import connect
    from llama2_host.device.device import Device

__all__ = ["Device", "connect"]


def __getattr__(name: str):
    # Names are imported on first use, so that `llama2_host.errors` does not pull in numpy and pyserial.
    if name == "connect":
        from llama2_host.connection import connect
        return connect
    if name == "Device":
        from llama2_host.device.device import Device
        return Device
    raise AttributeError(f"module 'llama2_host' has no attribute {name!r}")
