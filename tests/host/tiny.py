"""A model small enough to convert and decode in every test, and a tokenizer of single bytes."""
from llama2_host.tokenizer.base import Tokenizer
from llama2_spec.model import ModelConfig

CONFIG = ModelConfig(dim=32, hidden_dim=48, n_layers=1, n_heads=4, n_kv_heads=2, head_dim=8, vocab_size=259, seq_len=32)
TOKENIZER = Tokenizer([b"<unk>", b"\n<s>\n", b"\n</s>\n"] + [b"<0x%02X>" % byte for byte in range(256)], [0.0] * 259)
