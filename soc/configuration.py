"""The one configuration of the decoder core that boards, figures and documents are about."""

from llama2_spec.maxima import CORE

#: Arguments of accel.core.Core; what is not named here is as there.
PARAMETERS = {
    "columns":        2,       # positions that share one pass over the weights
    "candidate_sets": 1,       # how many of them may be sampled in it: 1, or all
    **CORE,                    # the largest shapes
    "addr_width":     24,      # beats of 16 bytes: 256 MiB
    "multiplier_bits": 25,     # of the device's multipliers: 25 x 18; changes no result
}


def create_core(**deviations):
    """The core in the one configuration, but for ``deviations``."""
    from accel.core import Core    # here, so that --help does not wait for it
    return Core(**{**PARAMETERS, **deviations})
