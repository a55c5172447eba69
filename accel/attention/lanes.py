"""Which sizes attention can have; here without Amaranth, so that a command line refuses the others at once."""


def check_lanes(lanes, pipes):
    """Raise ValueError, with a line that says what is possible, unless ``lanes`` and ``pipes`` are."""
    if lanes not in (8, 16, 32):
        raise ValueError(f"Attention has 8, 16 or 32 lanes, not {lanes}")
    if pipes not in (1, 2) or pipes > lanes // 8:
        possible = "1 softmax pipe" if lanes == 8 else "1 or 2 softmax pipes"
        raise ValueError(f"Attention of {lanes} lanes has {possible}, not {pipes}")
