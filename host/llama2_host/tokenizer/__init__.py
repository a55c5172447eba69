"""Vocabularies: ``load`` reads every kind from a file or folder, ``unpack`` from a model image; each is used as
``Tokenizer`` is.

The formats (`base`, `gguf_tokenizer`, `json_tokenizer`, `sentencepiece_tokenizer`) know how text becomes ids; the
readers above them (`binary`, `llama3_ranks`, `gguf_vocabulary`, `huggingface_tokenizer`, `unpacking`, `vocabulary`)
know where a vocabulary lies.
"""
from llama2_host.tokenizer.base import Decoder, Tokenizer, TokenizerError
from llama2_host.tokenizer.unpacking import unpack
from llama2_host.tokenizer.vocabulary import load

__all__ = ["Decoder", "Tokenizer", "TokenizerError", "load", "unpack"]
