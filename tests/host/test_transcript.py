"""Shows that each turn of a chat is the tail of the whole transcript encoded at once, with every vocabulary and
template."""
import json
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from bench.conformance import vocabularies as made
from bench.conformance.cases import CHATML, MISTRAL, PLAIN as PLAIN_TEXT, TAGS, VOCABULARIES
from bench.conformance.product import Scripted
from llama2_host.chat import jinja_template
from llama2_host.chat.conversation import Conversation
from llama2_host.errors import HostError
from llama2_host.generation import Sampling
from llama2_host.image.model import Model
from llama2_host.chat.template import PLAIN, Template, TemplateError

from llama2_host.tokenizer import load as load_tokenizer
from tests.host.test_ends import hugging_face
from tests.host.test_tokenizer import A, B, C, TINY

GREEDY = Sampling(temperature=0)
fuzz = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Tokenizers of folders that know BOS, EOS and ChatML's tokens, by the name of the vocabulary."""
    def read(name):
        folder = tmp_path_factory.mktemp("folder")
        for file, value in VOCABULARIES[name]().items():
            (folder / file).write_bytes(value if isinstance(value, bytes) else made.as_json(value))
        told = {"bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": made.CHAT}
        (folder / "tokenizer_config.json").write_text(json.dumps(told))
        return load_tokenizer(folder)
    found = {}
    return lambda name: found.get(name) or found.setdefault(name, read(name))


def converse(tokenizer, template, turns):
    """Ids that the model saw before each answer, and the conversation; a turn is a text, an answer's ids, a limit."""
    template = template.resolved(tokenizer)
    backend = Scripted(tokenizer, template)
    conversation, seen = Conversation(backend, template), []
    for text, answer, limit in turns:
        backend.answer = list(answer)
        list(conversation.turn(text, max_new=limit, sampling=GREEDY))
        seen.append(backend.seen)
    return seen, conversation


TEMPLATES = {"chatml": CHATML, "mistral": MISTRAL, "plain text": PLAIN_TEXT}
texts = st.text("aé .\n<|>s/[]", max_size=8)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@fuzz
@given(data=st.data())
def test_a_turn_is_the_tail_of_the_whole(read, vocabulary, template, data):
    tokenizer, chosen = read(vocabulary), Template.from_jinja(TEMPLATES[template])
    turns = [(data.draw(texts), data.draw(st.lists(st.integers(0, 450), max_size=6)) + [2] * data.draw(st.booleans()),
              7)
             for _ in range(3)]
    seen, conversation = converse(tokenizer, chosen, turns)
    whole = chosen.resolved(tokenizer).render_messages(conversation.messages)
    assert seen[-1] == tokenizer.encode(whole, bos=False)


def test_no_space_of_its_own_after_a_special_token(read):
    """Metaspace `first` puts a space before a text; the second turn is none."""
    tokenizer = read("first")
    seen, _ = converse(tokenizer, Template.from_jinja(MISTRAL),
                       [("a", [*tokenizer.encode("b", bos=False), 2], 9), ("c", [], 9)])
    assert seen[1] == tokenizer.encode("<s>[INST] a [/INST] b</s>[INST] c [/INST]", bos=False)
    end = seen[1].index(2)
    assert tokenizer.decode(seen[1][end + 1:end + 2]) == "["


@pytest.mark.parametrize("limit", [2, 50])
def test_patterns_go_on_where_the_answer_ends(limit):
    """A pattern of plain text, an answer cut by a limit or by a stop token that has no text."""
    template = Template.from_text(json.dumps({"user": "U:{user}\nB:", "restarts": False, "stops": [2]}))
    seen, _ = converse(TINY, template, [("a", [A, B, C, 2], limit), ("b", [], 9)])
    if limit == 2:
        assert seen[1] == TINY.encode("U:a\nB:abU:b\nB:")
    else:
        assert seen[1] == TINY.encode("U:a\nB:abc") + [2] + TINY.encode("U:b\nB:", bos=False)


def test_a_line_of_plain_text_is_a_word_of_its_own():
    for line, joined in (("c", "ba c"), (" c", "ba c"), ("\nc", "ba\nc")):
        seen, _ = converse(TINY, PLAIN, [("b", [A], 9), (line, [], 9)])
        assert seen[1] == TINY.encode(joined)


@pytest.mark.parametrize("template", [PLAIN, Template.from_text("llama2"), Template.from_jinja(PLAIN_TEXT),
                                      Template.from_jinja("{{ '' }}")])
@pytest.mark.parametrize("vocabulary", ["byte level", "never", "tiny"])
def test_an_empty_first_turn_breaks_nothing(read, vocabulary, template):
    tokenizer = TINY if vocabulary == "tiny" else read(vocabulary)
    seen, conversation = converse(tokenizer, template, [("", tokenizer.encode("b c", bos=False), 9), ("a", [300], 9)])
    assert seen[0] and len(seen[1]) >= 1 and conversation.history[:-1] == seen[1]


def test_an_answer_that_the_transcript_tells_otherwise_is_sent_again(read):
    """The model wrote a word in letters, the transcript has it whole: what transformers encodes is what the model
    sees."""
    tokenizer = read("prepend")
    letters = [id for char in "Once" for id in range(259, 512) if tokenizer.piece(id, False) == char.encode()]
    seen, conversation = converse(tokenizer, Template.from_jinja(CHATML), [("a", [*letters, 513], 9), ("b", [], 9)])
    whole = Template.from_jinja(CHATML).resolved(tokenizer).render_messages(conversation.messages)
    assert tokenizer.decode(letters) == "Once" and seen[1] == tokenizer.encode(whole, bos=False)
    assert seen[1][:len(seen[0])] == seen[0] and seen[1][len(seen[0]):][:4] != letters


# Templates ----------------------------------------------------------------------------------------

def test_special_tokens_are_the_tokenizers(tmp_path):
    """Not config.json's ids; null and missing ones render nothing, pad and unk are known."""
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<unk>",
              "chat_template":
              "{{ bos_token }}{{ bos_token + 'x' }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token }}|{{ mask_token "
              "}}|{{ bos_token is defined }}"}
    folder = hugging_face(tmp_path / "hf", 514, tokenizer__json=made.llama("first"), tokenizer_config__json=config)
    model = Model.load(folder)
    for template in (model.template, Template.from_text(model.template.to_text())):
        assert template.render_messages([]) == "x|<|im_end|>|<unk>|<unk>||False"


def test_generation_blocks_render_what_they_hold():
    source = "{% for m in messages %}{%- generation -%} {{ m.content }} {%- endgeneration %}{% endfor %}" \
             "{% generation %}a\n{% endgeneration %}\nb"
    assert jinja_template.render(source, [{"role": "user", "content": "x"}]) == "xa\nb"
    assert jinja_template.render("{% set a = 1 %}{% generation %}{% set a = 2 %}{{ a }}{% endgeneration %}{{ a }}",
                                 []) == "21"
    assert jinja_template.render(TAGS, [], {"bos_token": "<s>"}) == "<s>1True"
    assert jinja_template.render("{{ {'b': 'é', 'a': 1} | tojson(sort_keys=true, separators=(',', ':')) }}",
                                 []) == '{"a":1,"b":"é"}'
    with pytest.raises(HostError, match="begins with an underscore"):
        jinja_template.render("{{ namespace(_a=1) }}", [])


@pytest.mark.parametrize("source", ["{% if %}", "{% unknown %}", "{{ x"])
def test_a_template_that_does_not_compile_fails_a_chat_only(tmp_path, source):
    folder = hugging_face(tmp_path / "hf", tokenizer__model=made.sentencepiece(), chat_template__jinja=source.encode())
    image = tmp_path / "m.llm"
    image.write_bytes(Model.load(folder).data)
    for path in (folder, image):
        model = Model.load(path)
        assert model.template.stops == (2,) and model.tokenizer.encode("a")
        with pytest.raises(TemplateError, match="not a Jinja chat template"):
            Conversation(SimpleNamespace(tokenizer=model.tokenizer, model=model), model.template)
    with pytest.raises(HostError, match="not a Jinja chat template"):
        assert Model.load(folder, template=source + "{% %}").data


def test_where_a_folders_template_is_told(tmp_path):
    files = {"tokenizer__model": made.sentencepiece(),
             "tokenizer_config__json": {"chat_template": {"default": "{{ 1 }}", "x": "{{ 2 }}"}}}
    folder = hugging_face(tmp_path / "hf", **files)
    assert Model.load(folder).template.jinja == "{{ 1 }}"
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ 3 }}")
    # files replace what the settings say, and none is the default
    assert Model.load(folder).template.name == "plain"
    (folder / "chat_template.jinja").write_bytes(b"{{ 4 }}\r\nx")
    assert Model.load(folder).template.jinja == "{{ 4 }}\nx"
    other = hugging_face(tmp_path / "other", **files)
    assert Model.load(folder, tokenizer=other).template.jinja == "{{ 1 }}"      # a template goes with the tokenizer
