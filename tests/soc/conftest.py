"""The simulated SoC around the stub core, built once, for the tests of this room."""
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def build_around_stub():
    """Builds a simulator around the stub core, if anything changed, with LiteX's C library of another build: ``name``
    is its folder's in build/, the rest is for sim.build. Its memories are the baseline's, so that Verilator compiles
    one for both."""
    from bench.baseline import SIZES
    from targets import sim
    from tests import libc
    from tests.soc.stub_core import StubCore

    def build(name, **options):
        folder = sim.ROOT/"build"/name
        libc.share(folder)
        return sim.build(folder, core=StubCore(), soc_options=SIZES, **options)
    return build


@pytest.fixture(scope="session")
def build_stub(build_around_stub):
    """Builds the simulator with the stub core and the test firmware, if anything changed; returns Vsim."""
    return lambda: build_around_stub("sim-stub", firmware=HERE/"firmware")


@pytest.fixture(scope="session")
def stub_vsim(build_stub):
    return build_stub()
