"""What would have happened without faults: the same client and firmware on a line that damages nothing."""
from contextlib import contextmanager

from llama2_host.connection import DeviceBackend, put
from llama2_host.device.device import Device
from tests.faults.cable import Cable
from tests.faults.clock import CLOCK
from tests.faults.protocol_faults import URL
from tests.faults.world import Firmware, World


class Oracle:
    """One device per image, all of whose answers count as right."""

    def __init__(self, firmware: Firmware, images):
        self.firmware, self.images = firmware, images
        self._worlds: dict = {}

    @contextmanager
    def device(self, image, columns: int):
        """A device with this image; virtual time stands still elsewhere meanwhile."""
        now, world = CLOCK.now, CLOCK.world
        key = image, columns
        try:
            if key not in self._worlds:
                CLOCK.world = World(self.firmware, Cable([[], []]), columns=columns, commands=4000, flash=False)
                device = Device.open(URL)
                put(device, self.images[image])
                self._worlds[key] = CLOCK.world, device
            CLOCK.world, device = self._worlds[key]
            CLOCK.world.began = CLOCK.now
            device.hello()
            yield device
        finally:
            CLOCK.now, CLOCK.world = now, world

    def tokens(self, image, columns: int, ids, options, length: int):
        """The tokens that follow ``ids`` from position 0 on in a slot of ``length`` positions, the only one, and how
        they ended."""
        with self.device(image, columns) as device:
            if device.info.seq_len != length:
                device.divide(1, length)
            generation = device.generate(ids, options)
            return [event.token for event in generation], generation.outcome

    def backend(self, image, device) -> DeviceBackend:
        if device.info.seq_len != self.images[image].config.seq_len:
            device.divide(1)
        return DeviceBackend(device, self.images[image])
