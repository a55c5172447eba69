"""Writes a device's model to the board's flash, so that the board has it when it gets power; the device does the
work."""
import time

from llama2_spec import protocol
from llama2_spec.protocol import Opcode, Status, StoreState

from llama2_host.errors import HostError
from llama2_host.device.link import DeviceError, Link
from llama2_host.progress import Progress, quantity

ASK_S = 0.2             #: between looks at how far the device is
STUCK_S = 30.0          #: without progress; the slowest chip erases a sector in 3 s


def ask(link: Link) -> protocol.Stored:
    """The flash, and how far the last store is."""
    return link.request(Opcode.STORE, protocol.Store(0))


def check(image_bytes: int, stored: protocol.Stored) -> None:
    """Raise one line if there is no flash, or no room for the image."""
    if stored.flash_bytes == 0:
        raise DeviceError(Opcode.STORE, Status.NO_FLASH, protocol.Error(0, 0, 0))
    if image_bytes > stored.room:
        raise HostError(f"the model image has {quantity(image_bytes)}, the board's flash room for "
                        f"{quantity(stored.room)} ({quantity(stored.flash_bytes)} less "
                        f"{quantity(stored.flash_bytes - stored.room)} for the bitstream): convert with --format q4, "
                        "use a smaller model, or load without --flash")


def store(link: Link, image_bytes: int, progress: Progress = Progress.silent) -> protocol.Stored:
    """Have the device write its model and read it back; returns how much of it was new.

    A client that leaves does not end it. An upload or a loss of power does; storing again then goes on.
    """
    check(image_bytes, ask(link))
    progress.note("flash: another model that it holds is erased before this one is written: if power fails meanwhile, "
                  "the board starts without a model (the bitstream is safe)")
    stored = link.request(Opcode.STORE, protocol.Store(1))
    moved_s = time.monotonic()
    with progress.bar("writing flash", image_bytes) as bar:
        while stored.state == StoreState.RUNNING:
            time.sleep(ASK_S)
            before, stored = stored, ask(link)
            _expect_forward(before, stored, image_bytes)
            if (stored.done, stored.written) != (before.done, before.written):
                moved_s = time.monotonic()
            elif time.monotonic() - moved_s > STUCK_S:
                raise HostError(f"the flash has not moved for {STUCK_S:.0f} s at {stored.done} of {image_bytes} bytes: "
                                "power-cycle the board and load again")
            bar.update(stored.done)
    if stored.state == StoreState.FAILED:
        raise HostError(f"the flash does not hold what was written to it, near byte {stored.failed} of the image: "
                        "is it write-protected? load again; the bitstream is untouched")
    if stored.state != StoreState.DONE:
        raise HostError(
            "the device forgot the store (was it reset, or does another client load?): load again, it goes on")
    return stored


def _expect_forward(before: protocol.Stored, stored: protocol.Stored, image_bytes: int) -> None:
    """Refuse progress that could go on for ever: backwards, or beyond the image."""
    if stored.state == StoreState.RUNNING and (stored.done < before.done or stored.written < before.written
                                               or max(stored.done, stored.written) > image_bytes):
        raise HostError(f"the device says {stored.done} of {image_bytes} bytes are in the flash, {stored.written} of "
                        f"them written, after {before.done} and {before.written}: does another client store at the "
                        "same time? load again, it goes on")
