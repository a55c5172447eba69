"""Shows that a chat's turns, sent piece by piece, are what the template gives for the whole conversation."""
import io
import json
import resource
import time

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from llama2_host.chat import jinja_template
from llama2_host.chat.chat import Chat
from llama2_host.chat.conversation import Conversation
from llama2_host.errors import HostError
from llama2_host.chat.jinja_template import JinjaError
from llama2_host.tokenizer.json_tokenizer import JsonTokenizer
from llama2_host.image.discovery import find_template
from llama2_host.image.model import Model
from llama2_host.progress import Progress
from llama2_host.chat.template import BUILT_IN, CHATML, PLAIN, Template, TemplateError

from llama2_host.tokenizer import load as load_tokenizer
from llama2_spec.protocol import MAX_STOPS
from tests.host import vocabularies
from tests.host.checkpoints import write_gguf, write_huggingface
from tests.host.test_chat import GREEDY, Backend
from tests.host.test_vocabulary import STORIES, small
from tests.host.vocabularies import byte_level, gguf_byte_level, write_folder

SMOL = JsonTokenizer(byte_level().to_str(), bos_id=1, eos_id=2, stop_ids=(2, 0))
LLAMA2_JSON = JsonTokenizer(vocabularies.with_fallback(load_tokenizer(STORIES)).to_str(), bos_id=1, eos_id=2,
                            stop_ids=(2,))
END = 2


def smol(text):
    return SMOL.encode(text, bos=False)


def backend(*answers, tokenizer=SMOL, template=CHATML, seq_len=512):
    fake = Backend(*answers, seq_len=seq_len, template=template)
    fake.tokenizer = tokenizer
    return fake


def say(conversation, *lines, max_new=50):
    for line in lines:
        list(conversation.turn(line, max_new=max_new, sampling=GREEDY))


# Turns --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("template", [CHATML, Template.from_jinja(vocabularies.CHATML)])
def test_only_new_tokens_are_sent(template):
    fake = backend(smol("Hello!") + [END], smol("Good.") + [END], smol("x"), template=template)
    conversation = Conversation(fake, template, system="Be kind")
    say(conversation, "Hi", "And you?", "Bye")
    whole = "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert fake.requests[0] == (0, smol(whole))
    second = "\n<|im_start|>user\nAnd you?<|im_end|>\n<|im_start|>assistant\n"
    # The end that the model chose was not fed yet: it goes first.
    assert fake.requests[1] == (len(smol(whole)) + len(smol("Hello!")), [END] + smol(second))
    third = "\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    assert fake.requests[2][1] == [END] + smol(third)
    said = "".join((whole, "Hello!<|im_end|>", second, "Good.<|im_end|>", third, "x"))
    assert conversation.history == smol(said) and fake.rows == conversation.history[:-1]


def test_an_answer_that_was_cut_short_is_ended_by_the_template():
    fake = backend(smol("Hello and so on"), smol("x"))
    conversation = Conversation(fake, CHATML)
    say(conversation, "Hi", "Stop", max_new=3)
    assert fake.requests[1][1][1:] == smol("<|im_end|>\n<|im_start|>user\nStop<|im_end|>\n<|im_start|>assistant\n")


def test_an_answer_that_the_template_ends_otherwise():
    """The model chose <|endoftext|>, which the template never writes: it leaves the history again."""
    fake = backend(smol("Hello") + [0], smol("x"))
    conversation = Conversation(fake, CHATML)
    say(conversation, "Hi", "Go on")
    start = len(smol("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"))
    position, new = fake.requests[1]
    assert position == start + len(smol("Hello"))
    assert (0 not in conversation.history and new[-len(smol("<|im_start|>assistant\n")):] ==
            smol("<|im_start|>assistant\n"))
    assert SMOL.encode("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nGo "
                       "on<|im_end|>\n"
                       "<|im_start|>assistant\n") == conversation.history[:-1]


def test_a_template_that_rewrites_answers_rewinds_the_cache():
    """Thoughts are cut from earlier answers, as some models have it: what differs is sent again, no more."""
    template = Template.from_jinja(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('|')[-1] }}<|im_end|>\n{% endfor "
        "%}<|im_start|>{{ 'assistant\n' }}")
    fake = backend(smol("thought|said") + [END], smol("x"), template=template)
    conversation = Conversation(fake, template)
    say(conversation, "Hi", "Go on")
    expected = smol("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nsaid<|im_end|>\n<|im_start|>user\nGo "
                    "on<|im_end|>\n"
                    "<|im_start|>assistant\n")
    assert conversation.history[:-1] == expected
    position, new = fake.requests[1]
    assert (position == len(smol("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"))
            and new == expected[position:])


def test_llama2s_own_jinja():
    template = Template.from_jinja(vocabularies.LLAMA2)
    ids = lambda text: LLAMA2_JSON.encode(text, bos=False)
    fake = backend(ids("Hello you") + [END], ids("x"), tokenizer=LLAMA2_JSON, template=template)
    conversation = Conversation(fake, template, system="Be kind")
    say(conversation, "Hi", "Go on")
    assert fake.requests[0] == (0, ids("<s>[INST] <<SYS>>\nBe kind\n<</SYS>>\n\nHi [/INST]"))
    # The template writes a space before </s>, which the model did not: what transformers encodes is what the model
    # sees.
    whole = ids("<s>[INST] <<SYS>>\nBe kind\n<</SYS>>\n\nHi [/INST] Hello you </s><s>[INST] Go on [/INST]")
    position, new = fake.requests[1]
    assert conversation.history[:-len(ids("x"))] == whole and new == whole[position:]
    assert position == len(fake.requests[0][1]) + len(ids("Hello you")) and fake.requests[0][1][0] == 1


def test_a_full_context_begins_anew_with_the_system_prompt():
    fake = backend(smol("y" * 40) + [END], smol("x"), seq_len=100)
    conversation = Conversation(fake, CHATML, system="S")
    say(conversation, "Hi", "z" * 30)
    assert conversation.forgotten == 1 and fake.requests[1][0] == 0
    assert SMOL.decode(fake.requests[1][1]).startswith("system\nS\nuser\nzzz")


def test_a_turn_that_is_too_long_changes_nothing():
    fake = backend(smol("a") + [END], smol("b"), seq_len=100)
    conversation = Conversation(fake, CHATML)
    say(conversation, "Hi")
    before = list(conversation.history), conversation.cached, list(conversation.messages)
    with pytest.raises(HostError, match="the context 100 positions"):
        conversation.turn("z" * 200, max_new=5, sampling=GREEDY)
    assert (conversation.history, conversation.cached, conversation.messages) == before and conversation.forgotten == 0
    say(conversation, "Go on")
    assert fake.requests[1][1][0] == END


def test_undo_and_a_lost_cache():
    fake = backend(smol("a") + [END], smol("b") + [END], smol("c") + [END], smol("d") + [END])
    conversation = Conversation(fake, CHATML)
    say(conversation, "one", "two")
    conversation.undo_turn()
    say(conversation, "three")
    conversation.lost_cache()
    say(conversation, "four")
    assert fake.requests[3][0] == 0
    assert SMOL.decode(fake.requests[3][1]) == "user\none\nassistant\na\nuser\nfour\nassistant\n"


def test_in_a_chat_stop_tokens_are_not_shown():
    fake = backend(smol("Hello 🐕") + [END], template=CHATML)
    output = io.StringIO()
    chat = Chat(fake, sampling=GREEDY, max_new=50, output=output, progress=Progress.silent)
    chat.handle("Hi")
    assert output.getvalue() == "Hello 🐕\n"


# Templates ----------------------------------------------------------------------------------------

def test_system_prompts_without_a_place():
    no_system = Template.from_jinja("{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}")
    with pytest.raises(TemplateError, match="no place for a system prompt"):
        Conversation(backend(template=no_system), no_system, system="be kind")
    refusing = Template.from_jinja("{% if messages[0].role == 'system' %}{{ raise_exception('System role not "
                                   "supported') }}{% endif %}")
    with pytest.raises(JinjaError, match="refuses this conversation: System role not supported"):
        Conversation(backend(template=refusing), refusing, system="be kind")
    Conversation(backend(template=refusing), refusing)


def test_chatml_needs_its_tokens():
    with pytest.raises(TemplateError, match="which the vocabulary does not have"):
        CHATML.resolved(load_tokenizer(STORIES))
    assert CHATML.resolved(SMOL).stops == (2, 0)
    assert PLAIN.resolved(SMOL).stops == (2, 0) and PLAIN.resolved(None).stops == (1, 2)


@pytest.mark.parametrize("template", [*BUILT_IN.values(), Template.from_jinja(vocabularies.CHATML),
                                      Template("mine", jinja="{{ messages }}", stop_tokens=("a", "b"), stops=(5, 7))])
def test_round_trip(template):
    assert Template.from_text(template.to_text()) == template


@pytest.mark.parametrize("text", ["{% for %}", "{{ 1 +* 2 }}", "{% if x %}", "{{ x" * 5, "{% block %}",
                                  '{"jinja": "{% if"}',
                                  '{"stops": ["1"]}', '{"stops": [-1]}',
                                  json.dumps({"stops": list(range(MAX_STOPS + 1))}), '{"special_texts": ["a"]}',
                                  '{"jinja": 5}', "{{" + "(" * 5000, "{% x %}" * 90000])
def test_refuses_what_is_no_template(text):
    with pytest.raises((TemplateError, JinjaError)) as refused:
        Template.from_text(text)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500


def test_what_templates_may_use():
    source = ("{%- set ns = namespace(n=0) -%}{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}"
              "{% set ns.n = ns.n + 1 %}{{ m['content'] | trim }}{{ m.content.strip().split('b')[0] }}{% endfor %}{{ "
              "ns.n }}{{ messages[1:] | length }}{{ 'x' in messages[0].content }}{{ {'a': 'é'} | tojson }}{{ "
              "strftime_now('%Y') | length }}{{ tools is none }}{{ tools is defined }}{{ nothing is defined }}")
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": " ab "}]
    assert jinja_template.render(source, messages) == 'aba11True{"a": "é"}4TrueTrueFalse'


@pytest.mark.parametrize("source", [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'a' * 2000000000 }}", "{{ 9 ** 999999999 }}", "{{ '%2000000000d' % 1 }}", "{{ 'a' | center(2000000000) }}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ messages.__class__.__mro__ }}", "{{ ''.__class__.mro() }}",
    "{{ messages.append(1) }}", "{% include 'x' %}", "{{ undefined.field }}",
    "{{ cycler.__init__.__globals__ }}"])
def test_hostile_templates_end_in_one_line(source):
    """Soon, and without taking the machine's memory."""
    start_s, before_kib = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(JinjaError) as refused:
        jinja_template.render(source, [{"role": "user", "content": "x"}])
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500
    assert time.monotonic() - start_s < 60      # of processor time it has 3 s
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 512 << 10


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["{%", "%}", "{{", "}}", " for m in messages ", "if ", "endfor", "endif", "set x = ",
                                 "m.content", "|",
                                 "'a'", "[", "]", "(", ")", "-", "\n", "raise_exception", "loop.index", "{#", "1", "~",
                                 "x"]), max_size=14))
def test_fuzz_templates(parts):
    try:
        template = Template.from_text("{{ '' }}" + "".join(parts))
        template.check(None)
    except HostError as error:
        assert "\n" not in str(error)


# Where models bring them along --------------------------------------------------------------------

def test_found_in_a_folder_and_in_gguf(tmp_path):
    folder = write_huggingface(tmp_path / "hf", *small(400))
    write_folder(folder, byte_level(), eos_token="<|im_end|>", bos_token="<|im_start|>",
                 chat_template=vocabularies.CHATML)
    gguf = write_gguf(tmp_path / "m.gguf", *small(400),
                      vocabulary=gguf_byte_level(byte_level(), template=vocabularies.CHATML))
    for path in (folder, folder / "model.safetensors", gguf):
        template = Model.load(path).template
        assert template.jinja == vocabularies.CHATML and template.stops == (2, 0) and not template.restarts
        assert Model.load(path, template="plain").template.name == "plain"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": [
        {"name": "tool_use", "template": "{{ 1 }}"}, {"name": "default", "template": "{{ 2 }}"}]}))
    assert find_template(folder) == "{{ 2 }}"
    (folder / "chat_template.jinja").write_text("{{ 3 }}")
    assert find_template(folder) == "{{ 3 }}" and Model.load(folder).template.jinja == "{{ 3 }}"


def test_llama2s_own_vocabulary_learns_how_bos_is_written(tmp_path):
    config, tensors = small(512)
    folder = write_huggingface(tmp_path / "hf", config, tensors)
    (folder / "tokenizer.bin").write_bytes(STORIES.read_bytes())
    (folder / "chat_template.jinja").write_text(vocabularies.LLAMA2)
    model = Model.load(folder)
    assert model.template.special_texts == {"bos_token": "<s>", "eos_token": "</s>"}
    assert model.tokenizer.encode("<s>[INST]", bos=False)[0] == 1


def test_a_template_that_breaks_its_interpreter_is_one_line_and_the_next_one_renders():
    worker = jinja_template._worker()
    worker.kill()
    worker.wait()
    with pytest.raises(JinjaError, match="breaks its interpreter"):
        jinja_template.render("{{ 1 }}", [])
    assert jinja_template.render("{{ 1 }}", []) == "1"
