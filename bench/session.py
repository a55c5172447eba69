"""A simulator with a model in its DRAM, and the client connected to it, for measuring."""
import contextlib
import time

from llama2_host import connect
from llama2_host.device.link import LinkError
from soc.sim.simulator import Simulator

BOOT_S = 300    # a busy machine simulates 100 kHz, and the check of a large image takes millions of cycles


@contextlib.contextmanager
def session(vsim, dram, model):
    """Yields (simulator, client); ``dram`` is the file that fills the DRAM, ``model`` the image in it."""
    with Simulator(vsim, dram_image=dram) as simulator, patient(simulator.url, model) as client:
        yield simulator, client


def patient(url, model):
    """Connect, however long the device takes to boot."""
    deadline = time.monotonic() + BOOT_S
    while True:
        try:
            return connect(port=url, wait_s=60, model=model)
        except LinkError:
            if time.monotonic() > deadline:
                raise
