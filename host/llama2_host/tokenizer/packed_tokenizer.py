"""The tokenizer section of a model image where llama2.c's tokenizer.bin cannot say it: compressed JSON behind a magic."""
import base64
import json
import zlib

from llama2_host.tokenizer import nested_json
from llama2_host.tokenizer.base import Tokenizer, TokenizerError

MAGIC = b"TOKZ"                     #: as the length of a longest piece, which tokenizer.bin begins with, it would be huge
MAX_BYTES = 256 << 20               #: uncompressed; LLaMA-3's is 17 MB


def matches(data: bytes) -> bool:
    return data[:len(MAGIC)] == MAGIC


def pack(kind: str, content: str, options: dict) -> bytes:
    text = json.dumps({"kind": kind, "content": content, "options": options}, ensure_ascii=False, separators=(",", ":"))
    return MAGIC + zlib.compress(text.encode(), 6)


def pack_scored(kind: str, binary: bytes, options: dict) -> bytes:
    """A :class:`Tokenizer` that is more than its pieces and scores."""
    return pack(kind, base64.b64encode(binary).decode(), options)


def unpack(data: bytes, name="tokenizer"):
    """The tokenizer that was packed."""
    try:
        stream = zlib.decompressobj()
        text = stream.decompress(data[len(MAGIC):], MAX_BYTES)
        if not stream.eof:
            raise ValueError("incomplete")
        packed = nested_json.loads(text)
        options = dict(packed["options"])
        options["stop_ids"] = tuple(options["stop_ids"])
        if packed["kind"] == "json":
            from llama2_host.tokenizer.json_tokenizer import JsonTokenizer
            return JsonTokenizer(packed["content"], name=name, **options)
        content = base64.b64decode(packed["content"], validate=True)
        if packed["kind"] == "sentencepiece":
            from llama2_host.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer
            return SentencePieceTokenizer(content, name=name, **options)
        if packed["kind"] in ("scored", "gguf"):
            from llama2_host.tokenizer.gguf_tokenizer import GgufTokenizer
            plain = Tokenizer.unpack(content, name)
            return (Tokenizer if packed["kind"] == "scored" else GgufTokenizer)(plain.pieces, plain.scores, **options)
        raise ValueError(f"of kind {packed['kind']!r:.40}")
    except TokenizerError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, zlib.error, RecursionError) as error:
        raise TokenizerError(f"{name}: damaged tokenizer section ({' '.join(str(error).split())[:80]}): convert the "
                             "checkpoint again") from None
