"""Makes a ``tokenizers`` tokenizer of a sentencepiece model, as transformers does for the folders of its models."""
# Ref: https://github.com/huggingface/transformers: SentencePieceExtractor, SpmConverter, LlamaTokenizer

import re

from llama2_host.tokenizer.sentencepiece_model import CONTROL, NORMAL, USER_DEFINED, Model

SPACE = "▁"


def llama(vocabulary: dict[str, int], merges: list[tuple[str, str]], told: dict, *, code: bool = False):
    """The class LlamaTokenizer: the text as it is, a space put first as the settings have it. ``code``:
    CodeLlamaTokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    prefix = told.get("add_prefix_space")
    prefix = True if prefix is None else bool(prefix)
    unknown = {"unk_token": str(told.get("unk_token", "<unk>"))} if code else {}
    backend = Tokenizer(models.BPE(vocabulary, merges, fuse_unk=True, byte_fallback=True, **unknown))
    always = told.get("legacy", False) and not code
    scheme = ("always" if always else "first") if prefix else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme, split=False)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(steps + [decoders.Strip(content=" ", left=1)] * (prefix or code))
    return backend


def llama_of_model(model: Model, told: dict, *, code: bool = False):
    """The same, of a sentencepiece model; its own tokens join the additional ones of the settings."""
    vocabulary = {piece: id for id, piece in enumerate(model.pieces)}
    told["additional_special_tokens"] = _own_tokens(model)
    merges = [(id, cut, piece[:cut], piece[cut:]) for piece, id in vocabulary.items() for cut in range(1, len(piece))
              if piece[:cut] in vocabulary and piece[cut:] in vocabulary]
    return llama(vocabulary, [(left, right) for _, _, left, right in sorted(merges)], told, code=code)


def backend_of_model(model: Model, told: dict, added: dict):
    """The general class: normalisation, prefix and user-defined pieces as the model's own settings have them."""
    from tokenizers import AddedToken, Tokenizer, models
    told["additional_special_tokens"] = [token for token in _own_tokens(model) if token.special]
    names = {id: str(token) for id, token in added.items()}
    kept = {piece for id, piece in enumerate(model.pieces) if id not in names}
    pieces = [names[id] if id in names and names[id] not in kept else piece for id, piece in enumerate(model.pieces)]
    if model.dummy_prefix:              # found in the text as it is, so that each part between them gets its own prefix
        for id, token in added.items():
            added[id] = AddedToken(str(token), single_word=token.single_word, lstrip=token.lstrip, rstrip=token.rstrip,
                                   special=token.special, normalized=False)
    own = [pieces[id] for id, kind in enumerate(model.kinds) if kind == USER_DEFINED]
    backend = Tokenizer(models.BPE({piece: id for id, piece in enumerate(pieces)}, _merges(model, pieces),
                                   fuse_unk=True,
                                   unk_token=model.unk_piece, byte_fallback=model.byte_fallback,
                                   ignore_merges=bool(own)))
    legacy = bool(told.get("legacy", True))
    backend.normalizer, backend.pre_tokenizer = _normalizer(model, legacy), _pre_tokenizer(model, own, legacy)
    backend.decoder = _decoder(model)
    for name, id, piece in (("bos_token", model.bos_id, model.bos_piece), ("eos_token", model.eos_id, model.eos_piece),
                            ("unk_token", model.unk_id, model.unk_piece)):
        if id >= 0:
            told.setdefault(name, piece)
    return backend


def _own_tokens(model: Model) -> list:
    from tokenizers import AddedToken
    return [AddedToken(piece, normalized=False, special=kind == CONTROL)
            for piece, kind in zip(model.pieces, model.kinds)
            if kind in (CONTROL, USER_DEFINED)]


def _merges(model: Model, pieces: list[str]) -> list[tuple[str, str]]:
    """Merges of normal pieces only, the best score first."""
    normal = {pieces[id]: (-model.scores[id], id) for id, kind in enumerate(model.kinds) if kind == NORMAL}
    found = [(*rank, piece[:cut], piece[cut:]) for piece, rank in normal.items() for cut in range(1, len(piece))
             if piece[:cut] in normal and piece[cut:] in normal]
    return [(left, right) for _, _, left, right in sorted(found)]


def _normalizer(model: Model, legacy: bool):
    from tokenizers import Regex, normalizers
    steps: list[normalizers.Normalizer] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if model.escape_whitespaces:
        steps.append(normalizers.Replace(" ", SPACE))
    if model.dummy_prefix and legacy:   # Metaspace takes a space that is there for the prefix; sentencepiece does not
        steps.append(normalizers.Replace(Regex(r"\A" + SPACE), 2 * SPACE))
    return normalizers.Sequence(steps)


def _pre_tokenizer(model: Model, own: list[str], legacy: bool):
    from tokenizers import Regex, pre_tokenizers
    steps: list[pre_tokenizers.PreTokenizer] = []
    if model.dummy_prefix:
        steps.append(pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always" if legacy else "first",
                                              split=False))
    if own:                             # whole, and never merged with what stands beside them
        longest_first = sorted(own, key=len, reverse=True)
        steps.append(pre_tokenizers.Split(Regex("|".join(map(re.escape, longest_first))), behavior="isolated"))
    return pre_tokenizers.Sequence(steps) if steps else None


def _decoder(model: Model):
    from tokenizers import decoders
    steps: list[decoders.Decoder] = [decoders.Replace(SPACE, " ")]
    if model.byte_fallback:
        steps.append(decoders.ByteFallback())
    if model.dummy_prefix:
        steps += [decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    elif model.byte_fallback:
        steps.append(decoders.Fuse())
    return decoders.Sequence(steps)
