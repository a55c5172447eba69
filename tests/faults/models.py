"""Two models for the trials, one of which takes several sectors of a flash."""
from llama2_host.image.model import Model
from llama2_spec.model import ModelConfig
from tests.firmware.images import small_image
from tests.host.tiny import TOKENIZER

SMALL = ModelConfig(dim=32, hidden_dim=44, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8,
                    vocab_size=TOKENIZER.vocab_size, seq_len=256)
LARGE = ModelConfig(dim=64, hidden_dim=640, n_layers=1, n_heads=8, n_kv_heads=4, head_dim=8,
                    vocab_size=TOKENIZER.vocab_size, seq_len=400)


def models() -> dict[str, Model]:
    """By name."""
    made = {"small": Model(small_image(SMALL, "q4")), "large": Model(small_image(LARGE, "q8"))}
    for model in made.values():
        model.tokenizer_file = TOKENIZER
    assert len(made["large"].data) > 1 << 16
    return made
