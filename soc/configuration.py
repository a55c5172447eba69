"""The one configuration of the decoder core that all boards, figures and documents use."""

from llama2_spec.maxima import CORE

#: Arguments of accel.core.Core; the others keep their defaults.
PARAMETERS = {
    "columns":        2,       # positions that share one pass over the weights
    "candidate_sets": 1,       # how many of them may be sampled in it: 1, or all
    **CORE,                    # the largest shapes
    "addr_width":     24,      # beats of 16 bytes: 256 MiB
    "multiplier_bits": 25,     # of the device's multipliers: 25 x 18; changes no result
    "attention_lanes": 8,      # multipliers of each side of attention; changes no result
    "softmax_pipes":  1,       # scores of attention per cycle; changes no result
}


def create_core(**deviations):
    """The core in the one configuration, with ``deviations`` in place of some arguments."""
    from accel.core import Core    # here, so that --help does not wait for it
    return Core(**{**PARAMETERS, **deviations})
