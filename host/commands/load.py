"""Upload a model to a device and have it verified."""
import argparse

from host.commands import options
from host.errors import HostError
from host.progress import Progress, quantity


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_device(parser, local=False)
    options.add_model(parser, required=True)


def run(args: argparse.Namespace) -> int:
    progress = Progress.stderr()
    if args.port is None:
        raise HostError("load needs --port URL: the board or running simulator that takes the model")
    with options.open_backend(args, progress) as backend:
        progress.note(f"the device holds {backend.device.info.name or args.model.name}, "
                      f"{quantity(len(backend.model.data))}, verified (CRC {backend.model.payload_crc:#010x})")
    return 0
