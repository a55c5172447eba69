"""The largest shapes that the default build takes, which boards are built with and `llama2-host info` reckons with, and
the largest that any build can have."""
from llama2_spec.numerics import INDEX_BITS, MAX_DIM, MAX_HEAD_DIM, MAX_ROW, MAX_SEQ_LEN, WIDE
from llama2_spec.protocol import MAX_LAYERS

#: Arguments of accel.core.Core; a model may have any shape within them.
CORE = {"max_dim": 1024, "max_hidden_dim": 5632, "max_kv_dim": 1024, "max_heads": 32}
MAX_VOCAB_SIZE = (1 << 17) + (1 << 16)      #: of a command's 18 bits of rows
#: As a device reports them in HELLO.
BUILD = {**CORE, "max_head_dim": MAX_HEAD_DIM, "max_vocab_size": MAX_VOCAB_SIZE, "max_seq_len": MAX_SEQ_LEN,
         "max_layers": MAX_LAYERS}
DRAM_BYTES = 256 << 20                      #: an Arty's
MAX_HEADS  = 64                             #: of a build: what attention's head numbers reach
#: The largest maxima that the core's integers can hold, by the names of its arguments.
ENDS = {"max_dim": MAX_DIM, "max_hidden_dim": MAX_ROW, "max_kv_dim": MAX_DIM, "max_heads": MAX_HEADS}


def check_build(**maxima: int) -> None:
    """Refuse a build whose maxima (named as in :data:`ENDS`) its integers cannot hold; the ValueError names those that
    are too large or below 1."""
    beyond = [f"{name} {value}" for name, value in maxima.items() if not 1 <= value <= ENDS[name]]
    if beyond:
        raise ValueError(f"{' and '.join(beyond)}: indices of {INDEX_BITS} bits end at {MAX_DIM}, row sums of {WIDE} "
                         f"bits at {MAX_ROW} columns, heads at {MAX_HEADS}: build with maxima from 1 to there")
