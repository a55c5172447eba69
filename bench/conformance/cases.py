"""The cells' cases: folders and files along all axes, each with the reference of its kind."""
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.conformance import vocabularies as made
from llama2_host.tokenizer.sentencepiece_model import CONTROL, NORMAL, UNUSED, USER_DEFINED

TEXTS = ["", "Hello", " Hello", "Once upon a time, there was a dog.", "  two  spaces  ", "a\nb\n\n\tc ",
         "🐕 é e\u0301 日本 ßﬁ", "<s>x</s> y",
         "<|im_start|>user\nHi<|im_end|>\n", " a <unk> b<new>c <new> ", "it's 1234 they'VE \N{NO-BREAK SPACE}x"]
NO_UTF8 = "\udcff\udcc3x \udce2\udc82"        #: a command line with bytes that are not UTF-8
#: ids to turn into text beside those of the texts: bytes that are no UTF-8, spaces, special tokens
DECODE = [[1, 229, 133, 300], [454, 454, 310], [2, 454, 310, 1, 454, 310], [255, 258, 198, 172, 300], [454]]
CHATML = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' "
          "+ '\n' }}"
          "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
MISTRAL = ("{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + "
           "message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] | "
           "trim + eos_token }}{% endif %}{% endfor %}")
PLAIN = ("{% for message in messages %}{% if message['role'] == 'user' %}### User: {{ message['content'] }}\n\n### "
         "Assistant:"
         "{% else %}{{ message['content'] }}\n\n{% endif %}{% endfor %}")
TAGS = ("{{ bos_token }}{{ pad_token }}{{ unk_token }}{% for m in messages %}{% if m.role == 'assistant' %}{% "
        "generation %}"
        "{{ m.content }}{{ eos_token }}{% endgeneration %}\n{% else %}<{{ m.role }}>{{ m.content | tojson }}\n{% endif "
        "%}{% endfor %}{% set ns = namespace(n=1) %}{{ dict(a=ns.n).a }}{{ bos_token is defined }}")
TEMPLATES = {"chatml": CHATML, "mistral": MISTRAL, "plain": PLAIN, "tags": TAGS}
#: (what the user types, the answer, tokens after which the answer is cut; 0: it ends by itself)
TALK = [("Hi there", " Hello, you little dog", 0), ("What is  it?", "Once upon a time", 3), ("Go on\n", "", 0)]


MODEL = "model"         #: of a case whose vocabulary is elsewhere, the model's folder


@dataclass
class Case:
    """Files in a folder, through the product and its reference."""
    name: str
    reference: str                          #: transformers, sentencepiece, llama.cpp or run.c
    axis: str
    file: str = ""                          #: the vocabulary's file; empty: the folder
    make: Callable[[Path], None] | None = None
    files: dict[str, object] = field(default_factory=dict)      #: bytes, text or JSON by name
    texts: list[str] = field(default_factory=lambda: list(TEXTS))
    talk: bool = False                      #: three turns, too
    model: dict[str, object] = field(default_factory=dict)      #: of the model's own folder, where the vocabulary is
                                                                #: elsewhere

    def write(self, folder: Path) -> Path:
        """Make the files; returns the path that is named."""
        folder.mkdir(parents=True)
        _write(folder, self.files)
        if self.model:
            (folder / MODEL).mkdir()
            _write(folder / MODEL, self.model)
        if self.make:
            self.make(folder)
        return folder / self.file if self.file else folder


def _write(folder: Path, files: dict[str, object]) -> None:
    for name, value in files.items():
        data = value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else made.as_json(value)
        (folder / name).write_bytes(data)


LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "eos_token_id": 2}
VOCABULARIES = {
    "byte level": lambda: {"tokenizer.json": made.byte_level()},
    "byte level, digits": lambda: {"tokenizer.json": made.byte_level(digits=True)},
    "prepend": lambda: {"tokenizer.json": made.llama("prepend")},
    "first": lambda: {"tokenizer.json": made.llama("first")},
    "always": lambda: {"tokenizer.json": made.llama("always")},
    "never": lambda: {"tokenizer.json": made.llama("never", post=False)},
    "model": lambda: {"tokenizer.model": made.sentencepiece(extra=[(text, NORMAL) for text in made.CHAT])},
    "model, own pieces": lambda: {"tokenizer.model": made.sentencepiece(
        extra=[("<|im_start|>", USER_DEFINED), ("<|im_end|>", CONTROL), ("\n\n", USER_DEFINED)])},
}


def flags(text: str, **told) -> dict:
    """A special token as settings write it."""
    return {"__type": "AddedToken", "content": text, "lstrip": False, "rstrip": False, "normalized": False,
            "single_word": False} | told


SETTINGS = {
    "empty": {},
    "LlamaTokenizer": {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False},
    "not legacy": {"tokenizer_class": "LlamaTokenizerFast", "legacy": False, "add_bos_token": True},
    "legacy": {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": False},
    "legacy, general": {"legacy": False, "add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>"},
    "no prefix": {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False, "add_bos_token": True},
    "EOS added": {"add_bos_token": False, "add_eos_token": True, "eos_token": "</s>", "pad_token": "<unk>"},
    "null": {"bos_token": None, "eos_token": None, "unk_token": None, "pad_token": None, "add_bos_token": None},
    "only as EOS": {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>",
                    "tokenizer_class": "PreTrainedTokenizerFast"},
    "extra": {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "eos_token": flags("<|im_end|>")},
    "by flags": {"eos_token": flags("<|im_end|>", lstrip=True), "bos_token": flags("<|im_start|>", rstrip=True),
                 "pad_token": flags("<unk>", normalized=True)},
    "CodeLlama": {"tokenizer_class": "CodeLlamaTokenizer", "legacy": True},
    "single word": {"unk_token": flags("<unk>", single_word=True), "extra_special_tokens": ["<new>"]},
    "own name": {"image_token": "<new>", "eos_token": "</s>", "extra_special_tokens": {"turn_token": "<|im_end|>"}},
    "decoder": {"added_tokens_decoder": {
        "0": made.token(0, "<unk>"), "1": made.token(1, "<s>"), "2": made.token(2, "</s>"),
        "512": made.token(512, "<|im_start|>", rstrip=True), "513": made.token(513, "<|im_end|>", special=False),
        "514": made.token(514, "<new>", normalized=True, special=False)}, "bos_token": "<s>",
                "eos_token": "<|im_end|>"},
    "split": {"split_special_tokens": True, "eos_token": "<|im_end|>", "add_bos_token": True, "bos_token": "<s>"},
}
for _told in SETTINGS.values():     # an id belongs to the entry itself, not to the settings' object
    for _token in _told.get("added_tokens_decoder", {}).values():
        _token.pop("id", None)

BESIDE = {
    "map agrees": {"tokenizer_config.json": {"eos_token": "</s>", "bos_token": "<s>"},
                   "special_tokens_map.json": {"eos_token": "</s>", "bos_token": {"content": "<s>", "lstrip": False}}},
    "map contradicts": {"tokenizer_config.json": {"eos_token": "</s>", "bos_token": "<s>"},
                        "special_tokens_map.json": {"eos_token": {"content": "<|im_end|>", "lstrip": False,
                                                                  "rstrip": True,
                                                                  "normalized": False, "single_word": False},
                                                    "bos_token": None,
                                                    "additional_special_tokens": ["<|im_start|>"]}},
    "map alone": {"special_tokens_map.json": {"eos_token": "<|im_end|>", "pad_token": "<unk>"}},
    "map ignored": {"tokenizer_config.json": {"eos_token": "</s>", "added_tokens_decoder": {}},
                    "special_tokens_map.json": {"eos_token": "<|im_end|>"}, "added_tokens.json": {"<new>": 514}},
    "added_tokens.json": {"tokenizer_config.json": {"eos_token": "<|im_end|>"},
                          "added_tokens.json": {"<|im_start|>": 512, "<|im_end|>": 513, "<new>": 514}},
    "several ends": {"tokenizer_config.json": {"eos_token": "</s>"},
                     "generation_config.json": {"eos_token_id": [2, 420, 430]}},
    "ends contradict": {"tokenizer_config.json": {"eos_token": "<|im_end|>"},
                        "generation_config.json": {"eos_token_id": 420},
                        "config.json": LLAMA | {"eos_token_id": 430}},
    "ends by default": {"config.json": {"model_type": "llama"}},
    "ends of config.json": {"config.json": LLAMA | {"eos_token_id": [430, 431], "bos_token_id": 1}},
    "of Mistral": {"config.json": LLAMA | {"model_type": "mistral"},
                   "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True,
                                             "legacy": False}},
}


def folders():
    """Hugging Face folders."""
    for vocabulary, files in VOCABULARIES.items():
        for name, told in SETTINGS.items():
            if name == "CodeLlama" and vocabulary.startswith("byte level"):     # whose class needs an <unk>
                continue
            yield Case(f"{vocabulary}: {name}", "transformers", "settings",
                       files=files() | {"config.json": LLAMA, "tokenizer_config.json": told})
        for name, beside in BESIDE.items():
            yield Case(f"{vocabulary}: {name}", "transformers", "beside",
                       files=files() | {"config.json": LLAMA} | beside,
                       texts=TEXTS[5:])
        for name, template in TEMPLATES.items():
            told = {"bos_token": "<s>", "eos_token": "<|im_end|>" if name == "chatml" else "</s>",
                    "chat_template": template,
                    "tokenizer_class": "LlamaTokenizer" if name == "mistral" else "PreTrainedTokenizerFast",
                    "additional_special_tokens": made.CHAT}
            if name == "tags":
                told |= {"bos_token": None}
            yield Case(f"{vocabulary}: chat, {name}", "transformers", "chat", texts=[], talk=True,
                       files=files() | {"config.json": LLAMA, "tokenizer_config.json": told})


OWN = {
    "several": {"generation_config.json": {"eos_token_id": [2, 420, 430]}},
    "of config.json": {"config.json": LLAMA | {"eos_token_id": 420}},
    "contradicting": {"config.json": LLAMA | {"eos_token_id": 420}, "generation_config.json": {"eos_token_id": 430}},
}


def elsewhere():
    """A model in one folder, its tokenizer in another that has ends of its own."""
    for vocabulary in ("byte level", "prepend", "model"):
        for name, own in OWN.items():
            told = {"config.json": LLAMA | {"eos_token_id": 300},
                    "tokenizer_config.json": {"eos_token": "<|im_end|>", "add_bos_token": True},
                    "generation_config.json": {"eos_token_id": [301]}}
            yield Case(f"elsewhere, {vocabulary}: {name}", "transformers", "elsewhere",
                       files=VOCABULARIES[vocabulary]() | told,
                       texts=TEXTS[6:9], model={"config.json": LLAMA} | own)


MODELS = {
    "LLaMA-2's": {}, "nmt_nfkc": {"charsmap": "nmt_nfkc"}, "nfkc": {"charsmap": "nfkc"},
    "nfkc_cf": {"charsmap": "nfkc_cf"},
    "no prefix": {"dummy_prefix": False}, "spaces removed": {"remove_extra_whitespaces": True},
    "spaces removed, no prefix": {"remove_extra_whitespaces": True, "dummy_prefix": False},
    "nmt_nfkc, spaces removed": {"charsmap": "nmt_nfkc", "remove_extra_whitespaces": True},
    "no byte fallback": {"drop_bytes": True}, "no byte fallback, nfkc": {"drop_bytes": True, "charsmap": "nfkc"},
    "user defined": {"extra": [("<|im_start|>", USER_DEFINED), ("\n\n", USER_DEFINED), ("b<", USER_DEFINED)]},
    "control": {"extra": [("<|im_end|>", CONTROL)]}, "unused": {"extra": [("Hello", UNUSED)]},
    "other surface": {"drop_bytes": True, "unk_surface": "?"},
    "spaces as they are": {"escape_whitespaces": False},
}


def models():
    """tokenizer.model files that lie alone."""
    for name, settings in MODELS.items():
        def make(folder, settings=settings):
            told = dict(settings)
            if "charsmap" in told:
                told["charsmap"] = made.charsmap(told["charsmap"])
            (folder / "tokenizer.model").write_bytes(made.sentencepiece(**told))
        yield Case(f".model: {name}", "sentencepiece", "sentencepiece", "tokenizer.model", make)


THINK = [("<think>", USER_DEFINED), ("\n\n", USER_DEFINED), ("<|im_start|>", USER_DEFINED), ("<|im_end|>", NORMAL)]
GGUFS = {
    "plain": {}, "no BOS": {"keys": {"add_bos_token": False}}, "EOS added": {"keys": {"add_eos_token": True}},
    "no prefix": {"keys": {"add_space_prefix": False}}, "type 4": {"extra": THINK},
    "other ids": {"keys": {"bos_token_id": 2, "eos_token_id": 1}},
    "eot, eom": {"keys": {"eot_token_id": 300, "eom_token_id": 301}},
    "of Gemma": {"extra": [("<end_of_turn>", NORMAL), ("<start_of_turn>", USER_DEFINED), ("<eos>", CONTROL)]},
    "of LLaMA-3": {"extra": [("<|eot_id|>", NORMAL), ("<|eom_id|>", CONTROL), ("<|end_of_text|>", CONTROL)]},
    "of others": {"extra": [("<EOT>", NORMAL), ("_<EOT>", NORMAL), ("[EOT]", CONTROL),
                            ("<end_of_utterance>", USER_DEFINED),
                            ("<|endoftext|>", NORMAL), ("[EOS]", CONTROL), ("<｜end▁of▁sentence｜>", CONTROL)]},
    "harmony": {"extra": [("<|end|>", CONTROL), ("<|return|>", CONTROL), ("<|call|>", CONTROL),
                          ("<|channel|>", CONTROL)]},
    "fill in": {"extra": [("<|fim_pad|>", NORMAL), ("<|repo_name|>", CONTROL), ("<|file_sep|>", NORMAL),
                          ("<|fim_prefix|>", CONTROL)]},
    "tool": {"extra": [("<|tool_response>", CONTROL), ("<turn|>", NORMAL)]},
    "unused": {"extra": [("▁Hello", UNUSED), ("<new>", CONTROL), ("ab", USER_DEFINED), ("bcd", USER_DEFINED)]},
}


def ggufs():
    """GGUF files."""
    def case(name, kind, axis="GGUF", talk=False, **options):
        return Case(f"GGUF {kind}: {name}", "llama.cpp", axis, "m.gguf",
                    lambda folder: made.gguf(folder / "m.gguf", kind, **options),
                    texts=[*TEXTS, NO_UTF8, "abcd<|end|>"], talk=talk)
    for kind in ("llama", "gpt2"):
        for name, options in GGUFS.items():
            if not (kind == "gpt2" and (name == "no prefix"
                                        or any(text in ("<|endoftext|>", *made.CHAT)
                                               for text, _ in options.get("extra", ())))):
                yield case(name, kind, **options)
    for pre in ("gpt-2", "llama-bpe", "llama3", "smaug-bpe", "dbrx", "falcon3", "mellum"):
        yield case(f"split as {pre}", "gpt2", pre=pre)
    for name, template in TEMPLATES.items():
        yield case(f"chat, {name}", "llama", "chat", True, extra=THINK, keys={"chat_template": template})
        yield case(f"chat, {name}", "gpt2", "chat", True, keys={"chat_template": template})


def binaries():
    """llama2.c's files."""
    for age in ("newest", "early"):
        yield Case(f"tokenizer.bin: {age}", "run.c", "tokenizer.bin", "tokenizer.bin",
                   files={"tokenizer.bin": made.tokenizer_bin(age)}, texts=[*TEXTS, NO_UTF8])


def all_cases() -> list[Case]:
    """Every case, each with a name of its own."""
    return [*folders(), *elsewhere(), *models(), *ggufs(), *binaries()]

