"""Upload a model to a device and have it verified, for good with --flash."""
import argparse

from llama2_host.commands import options
from llama2_host.connection import DeviceBackend
from llama2_host.errors import HostError
from llama2_host.progress import Progress, quantity


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_device(parser, local=False)
    options.add_model(parser, default="")
    parser.add_argument("--flash", action="store_true", help="write it to the board's flash, too: the board then has "
                                                             "it when it gets power")


def run(args: argparse.Namespace) -> int:
    progress = Progress.stderr()
    options.find_port(args)
    if args.port is None:
        raise HostError("load needs --port URL: the board or running simulator that takes the model")
    options.check(args)
    with options.open_backend(args, progress, flash=args.flash) as backend:
        assert isinstance(backend, DeviceBackend)       # --port was asked for
        progress.note(f"the device holds {backend.device.info.name or args.model.name}, "
                      f"{quantity(len(backend.model.data))}, verified (CRC {backend.model.payload_crc:#010x})")
        if args.flash:
            stored = backend.device.store(progress=progress)
            progress.note(f"the board's flash holds it, read back; {quantity(stored.written)} of it were written")
    return 0
