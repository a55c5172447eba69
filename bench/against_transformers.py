"""Compares with transformers itself: logits of small random LLaMAs, and a chat's ids; ``python -m
bench.against_transformers``.

Needs ``pip install torch transformers`` beside this project's own packages; nothing else here does.
"""
import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from bench import records
from llama2_host.checkpoint import load
from llama2_host.checkpoint.padding import padded
from llama2_host.chat.conversation import Conversation
from llama2_host.generation import Sampling
from llama2_host.chat.template import Template

from llama2_host.tokenizer import load as load_tokenizer
from llama2_spec.reference import Reference
from tests.host import vocabularies
from tests.host.test_chat import Backend

ROOT = Path(__file__).parent.parent
IDS = np.arange(40) * 7 % 200
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
CASES = {"untied, ten shards": {"shard": "60KB"}, "tied": {"tied": True}, "heads of 32, not 16": {"head_dim": 32},
         "linear scaling": {"rope": {"rope_type": "linear", "factor": 4.0}}, "llama3 scaling": {"rope": LLAMA3},
         "dim 36 in 3 heads of 12, filled with zeros": {"dim": 36, "heads": 3, "head_dim": 12},
         "the same with llama3 scaling": {"dim": 36, "heads": 3, "head_dim": 12, "rope": LLAMA3}}
TOLERANCE = 5e-5


def logits(folder: Path, *, dim: int = 64, heads: int = 4, head_dim: int = 16, tied: bool = False,
           rope: dict | None = None, shard: str = "5GB"):
    """Logits of a transformers model with random weights, which is saved to ``folder``, and of the reference that is
    read from there."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(
        hidden_size=dim, intermediate_size=96, num_hidden_layers=3, num_attention_heads=heads,
        num_key_value_heads=heads // 2, head_dim=head_dim,
        vocab_size=200, max_position_embeddings=64, rms_norm_eps=1e-6, tie_word_embeddings=tied, initializer_range=0.15,
        rope_parameters={"rope_theta": 50000.0, "rope_type": "default", **(rope or {})})).eval().float()
    model.save_pretrained(folder, max_shard_size=shard)
    with torch.no_grad():
        theirs = model(torch.tensor(IDS)[None]).logits[0].numpy()
    checkpoint = padded(load(folder))           # as a conversion does
    return theirs, Reference(checkpoint.config, checkpoint.tensors).logits(IDS)


def chat_ids(folder: Path, template: str):
    """A chat of three turns: transformers' ids of the whole, and the ids in the K/V cache after sending it turn by
    turn."""
    from transformers import AutoTokenizer
    vocabularies.write_folder(folder, vocabularies.byte_level(), bos_token="<|im_start|>", eos_token="<|im_end|>",
                              tokenizer_class="PreTrainedTokenizerFast", chat_template=template)
    theirs = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi! 1234"},
                {"role": "assistant", "content": "Hello 🐕"},
                {"role": "user", "content": "And  you?\n"}, {"role": "assistant", "content": "I'm fine."},
                {"role": "user", "content": "Bye"}]
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    ours = load_tokenizer(folder)
    backend = Backend(*[ours.encode(m["content"], bos=False) + [ours.eos_id] for m in messages
                        if m["role"] == "assistant"], [7], seq_len=512)
    backend.tokenizer = ours
    conversation = Conversation(backend, Template.from_jinja(template), system="Be brief.")
    for message in messages:
        if message["role"] == "user":
            list(conversation.turn(message["content"], max_new=99, sampling=Sampling(temperature=0)))
    return list(expected), backend.rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "results" / "against_transformers.json")
    args = parser.parse_args()
    import transformers
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for i, (name, case) in enumerate(CASES.items()):
            theirs, ours = logits(Path(temporary) / str(i), **case)
            rows.append({"case": name, "largest_difference": float(np.abs(theirs - ours).max()),
                         "largest_logit": float(np.abs(theirs).max())})
            print(json.dumps(rows[-1]))
        theirs, ours = chat_ids(Path(temporary) / "chat", vocabularies.CHATML)
        print(f"chat: {len(theirs)} ids, " + ("equal" if theirs == ours else "different"))
    result = {"command": "python -m bench.against_transformers", "transformers": transformers.__version__,
              "logits": rows,
              "chat_ids": len(theirs), "chat_equal": theirs == ours}
    records.write(args.json, "against_transformers", result)
    return 0 if theirs == ours and all(row["largest_difference"] < TOLERANCE for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
