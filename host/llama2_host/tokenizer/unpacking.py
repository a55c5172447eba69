"""Makes a tokenizer from the tokenizer section of a model image, whatever its kind."""
import base64
import zlib

from llama2_host import nested_json
from llama2_host.tokenizer import binary, section
from llama2_host.tokenizer.base import Tokenizer, TokenizerError
from llama2_host.tokenizer.gguf_tokenizer import GgufTokenizer
from llama2_host.tokenizer.json_tokenizer import JsonTokenizer
from llama2_host.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer

MAX_BYTES = 256 << 20               #: uncompressed; LLaMA-3's is 17 MB


def unpack(data: bytes, name="tokenizer"):
    """A tokenizer from the bytes of its ``pack``, or from a llama2.c tokenizer.bin. ``name`` begins the error
    messages."""
    if not section.matches(data):
        return binary.read(data, name)
    try:
        return _of_section(data, name)
    except TokenizerError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, zlib.error, RecursionError) as error:
        raise TokenizerError(f"{name}: damaged tokenizer section ({' '.join(str(error).split())[:80]}): convert the "
                             "checkpoint again") from None


def _of_section(data: bytes, name):
    stream = zlib.decompressobj()
    text = stream.decompress(data[len(section.MAGIC):], MAX_BYTES)
    if not stream.eof:
        raise ValueError("incomplete")
    packed = nested_json.loads(text)
    options = dict(packed["options"])
    options["stop_ids"] = tuple(options["stop_ids"])
    kind = packed["kind"]
    if kind == "json":
        return JsonTokenizer(packed["content"], name=name, **options)
    content = base64.b64decode(packed["content"], validate=True)
    if kind == "sentencepiece":
        return SentencePieceTokenizer(content, name=name, **options)
    if kind in ("scored", "gguf"):
        plain = binary.read(content, name)
        if not isinstance(plain, Tokenizer):        # ranks of LLaMA-3, which are packed as json
            raise ValueError("ranks in place of scores")
        return (Tokenizer if kind == "scored" else GgufTokenizer)(plain.pieces, plain.scores, **options)
    raise ValueError(f"of kind {kind!r:.40}")
