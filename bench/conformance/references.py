"""Gets the references' answers. The environment of bench.conformance runs this: it reads one job per line of JSON and
writes one answer per line."""
# Runs without this project's packages: only transformers, sentencepiece and llama-cpp-python with what they need.
import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"


def transformers_says(job):
    """A folder: ids and texts, rendered conversations and their ids, and where a generation ends."""
    from transformers import AutoTokenizer
    from transformers.utils import logging
    logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(job["path"])
    chats = []
    for messages in job.get("chats", []):
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        chats.append({"text": text, "ids": tokenizer.encode(text, add_special_tokens=False)})
    return {"ids": [tokenizer.encode(text) for text in job.get("texts", [])],
            "texts": [tokenizer.decode(ids, skip_special_tokens=True) for ids in job.get("decode", [])],
            "chats": chats, "ends": transformers_ends(job.get("model") or job["path"], tokenizer)}


def transformers_ends(path, tokenizer):
    """The ends in its generation configuration, which is the model's configuration if there is none, and the
    tokenizer's own end."""
    from transformers import AutoConfig, GenerationConfig
    try:
        config = GenerationConfig.from_pretrained(path)
    except OSError:
        try:
            config = GenerationConfig.from_model_config(AutoConfig.from_pretrained(path))
        except OSError:
            config = GenerationConfig()
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    return sorted({id for id in [*ends, tokenizer.eos_token_id] if id is not None})


def sentencepiece_says(job):
    """A tokenizer.model that lies alone: LLaMA-2's BOS before what the package says."""
    import sentencepiece
    model = sentencepiece.SentencePieceProcessor(model_file=job["path"])
    begin = [model.bos_id()] if model.bos_id() >= 0 else []
    return {"ids": [begin + model.encode(text) for text in job.get("texts", [])],
            "texts": [model.decode(ids) for ids in job.get("decode", [])], "ends": []}


def llama_cpp_says(job):
    """A GGUF file's vocabulary: ids with what a prompt begins with, texts as they are printed, and all ends."""
    import ctypes

    import llama_cpp
    llama_cpp.llama_log_set(SILENCE, ctypes.c_void_p(0))
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(job["path"].encode(), parameters)
    if not model:
        raise ValueError("llama.cpp does not read it")
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    size = llama_cpp.llama_vocab_n_tokens(vocabulary)

    def ids(text):
        data = text.encode("utf-8", "surrogateescape")
        room = (llama_cpp.llama_token * (len(data) + 16))()
        count = llama_cpp.llama_tokenize(vocabulary, data, len(data), room, len(room), True, True)
        return list(room[:count])

    def text(ids):
        room, given = ctypes.create_string_buffer(1 << 16), (llama_cpp.llama_token * max(len(ids), 1))(*ids)
        count = llama_cpp.llama_detokenize(vocabulary, given, len(ids), room, len(room), False, False)
        return room.raw[:count].decode("utf-8", "replace")

    def piece(id):
        return llama_cpp.llama_vocab_get_text(vocabulary, id).decode() if id >= 0 else ""

    bos, eos = piece(llama_cpp.llama_vocab_bos(vocabulary)), piece(llama_cpp.llama_vocab_eos(vocabulary))
    chats = []
    for messages in job.get("chats", []):
        from transformers.utils.chat_template_utils import render_jinja_template
        template = llama_cpp.llama_model_chat_template(model, None).decode()
        rendered = render_jinja_template([messages], chat_template=template, add_generation_prompt=True, bos_token=bos,
                                         eos_token=eos)
        rendered = rendered[0][0]
        # As its server does: the prompt begins with one BOS, whether the template writes it or not
        begun = llama_cpp.llama_vocab_get_add_bos(vocabulary) and rendered.startswith(bos)
        chats.append({"text": rendered, "ids": ids(rendered[len(bos):] if begun else rendered)})
    answer = {"chats": chats, "ids": [ids(each) for each in job.get("texts", [])],
              "texts": [text(each) for each in job.get("decode", [])],
              "ends": [id for id in range(size) if llama_cpp.llama_vocab_is_eog(vocabulary, id)]}
    llama_cpp.llama_model_free(model)
    return answer


def _silence():
    import llama_cpp
    return llama_cpp.llama_log_callback(lambda level, text, data: None)


REFERENCES = {"transformers": transformers_says, "sentencepiece": sentencepiece_says, "llama.cpp": llama_cpp_says}


def main():
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer = REFERENCES[job["reference"]](job)
        except Exception as error:      # a refusal of the reference is an answer, too
            answer = {"refused": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    try:
        SILENCE = _silence()
    except ImportError:
        SILENCE = None
    main()
