"""The simulated SoC around the stub core, built once, for the tests of this room."""
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def build_stub():
    """Builds the simulator with the stub core and the test firmware, if anything changed; returns Vsim."""
    from targets import sim
    from tests.soc.stub_core import StubCore
    return lambda: sim.build(sim.ROOT/"build"/"sim-stub", core=StubCore(), firmware=HERE/"firmware",
                             soc_options={"with_timer": True})    # LiteX's libraries ask for it


@pytest.fixture(scope="session")
def stub_vsim(build_stub):
    return build_stub()
