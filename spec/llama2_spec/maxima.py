"""The largest shapes that the default build takes, which boards are built with and `llama2-host info` reckons with."""
from llama2_spec.numerics import MAX_HEAD_DIM, MAX_SEQ_LEN
from llama2_spec.protocol import MAX_LAYERS

#: Arguments of accel.core.Core; a model may have any shape within them.
CORE = {"max_dim": 1024, "max_hidden_dim": 5632, "max_kv_dim": 1024, "max_heads": 32}
MAX_VOCAB_SIZE = (1 << 17) + (1 << 16)      #: of a command's 18 bits of rows
#: As a device reports them in HELLO.
BUILD = {**CORE, "max_head_dim": MAX_HEAD_DIM, "max_vocab_size": MAX_VOCAB_SIZE, "max_seq_len": MAX_SEQ_LEN,
         "max_layers": MAX_LAYERS}
DRAM_BYTES = 256 << 20                      #: an Arty's
