"""Makes small vocabularies of the kinds that models bring along, by the packages that make the real ones."""
import functools
import json
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from llama2_host.tokenizer.base import Tokenizer

TEXT = ["Once upon a time, there was a little girl named Lily. She was 7 years old.",
        "\"Über den Wolken\", sang 日本の猫 🐕.",
        "def f(x):\n    return x + 1234\n", "He said: I don't know, they've gone. THE END\n\n",
        "The quick brown fox jumps over the lazy dog while seventeen wizards quietly juggle boxes of frozen "
        "vegetables.",
        "Every morning the gardener watered tomatoes, cucumbers and peppers behind the old railway station near the "
        "river.",
        "Mathematics, chemistry and geography were his favourite subjects; music and drawing came immediately "
        "afterwards."] * 8
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
#: as SmolLM2 has it; its own comes with the model
CHATML = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
          "{{ '<|im_start|>system\nYou are tiny<|im_end|>\n' }}{% endif %}"
          "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
#: as LLaMA-2's chat models have it, without its checks
LLAMA2 = ("{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
          "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
          "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
          "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') "
          "}}{% endif %}{% if loop.index0 == 0 and system_message != false %}"
          "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
          "{% else %}{% set content = message['content'] %}{% endif %}"
          "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
          "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}"
          "{% endif %}{% endfor %}")


@functools.cache
def byte_level(size: int = 400) -> tokenizers.Tokenizer:
    """Byte-level BPE with single digits, as SmolLM2's."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIALS, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def with_fallback(scored: Tokenizer, *, metaspace: bool = False) -> tokenizers.Tokenizer:
    """LLaMA-2's tokenizer.json of a scored vocabulary: merges in the order of their results' scores."""
    texts = ["<unk>", "<s>", "</s>", *(piece.decode().replace(" ", "▁") for piece in scored.pieces[3:])]
    ids = {text: id for id, text in reversed(list(enumerate(texts)))}
    merges = [(scored.scores[id], ids[text[:cut]], ids[text[cut:]], text[:cut], text[cut:]) for text, id in ids.items()
              if id >= 259 for cut in range(1, len(text)) if text[:cut] in ids and text[cut:] in ids]
    merges = [(a, b) for _, _, _, a, b in sorted(merges, key=lambda merge: (-merge[0], merge[1], merge[2]))]
    tokenizer = tokenizers.Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in texts[:3]])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def write_folder(folder: Path, tokenizer: tokenizers.Tokenizer, *, generation: dict | None = None, **config) -> Path:
    """tokenizer.json with tokenizer_config.json and generation_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def gguf_byte_level(tokenizer: tokenizers.Tokenizer, *, pre: str = "smollm", template: str | None = None, bos: int = 0,
                    eos: int = 2):
    """Writes a byte-level vocabulary's keys, as llama.cpp's converter does."""
    described = json.loads(tokenizer.to_str())
    texts = [text for text, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    special = {token["id"] for token in described["added_tokens"]}

    def write(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(texts)
        writer.add_token_types([3 if id in special else 1 for id in range(len(texts))])
        writer.add_token_merges([" ".join(merge) for merge in described["model"]["merges"]])
        writer.add_bos_token_id(bos)
        writer.add_eos_token_id(eos)
        if template is not None:
            writer.add_chat_template(template)
    return write


def gguf_scored(scored: Tokenizer, *, extra=(), template: str | None = None):
    """Writes a sentencepiece vocabulary's keys; ``extra`` are further tokens that a chat model was given."""
    def write(writer):
        texts = ["<unk>", "<s>", "</s>", *(piece.decode().replace(" ", "▁") for piece in scored.pieces[3:]), *extra]
        writer.add_tokenizer_model("llama")
        writer.add_token_list(texts)
        writer.add_token_scores([*scored.scores, *[0.0] * len(extra)])
        writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (len(scored.pieces) - 259), *[4] * len(extra)])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        if template is not None:
            writer.add_chat_template(template)
    return write
