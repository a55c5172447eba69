"""Chat templates: the text around what a user types, as the model was trained to see it."""
import json
from dataclasses import asdict, dataclass, field, replace

from llama2_host import nested_json
from llama2_host.errors import HostError
from llama2_host.generation import STOP_IDS
from llama2_spec.protocol import MAX_STOPS


class TemplateError(HostError):
    """Not a chat template."""


@dataclass(frozen=True)
class Template:
    """The form of a turn: a pattern in which ``{user}`` and ``{system}`` stand for texts, or Jinja over all
    messages."""
    name: str = "plain"
    user: str = "{user}"                #: a turn
    system: str = ""                    #: the first turn when there is a system prompt; empty: the model takes none
    bos_every_turn: bool = False        #: BOS before every turn, not only the first
    stops: tuple[int, ...] = ()         #: ids that end an answer; empty: the tokenizer's
    restarts: bool = True               #: an answer that ended with a stop token was a whole story: begin anew
    jinja: str = ""                     #: a template as tokenizer_config.json has it; goes before the patterns
    stop_tokens: tuple[str, ...] = ()   #: special tokens that end an answer, beside the tokenizer's ids
    special_texts: dict[str, str] = field(default_factory=dict)     #: for Jinja: ``bos_token`` and others, where there
                                                                    #: are any
    left_out: tuple[int, ...] = ()      #: further ids that end an answer, for which a request has no room
    broken: str = ""                    #: why this template, which came with a model, cannot be used

    def render(self, text: str, system: str | None = None) -> str:
        """One turn as text; ``system`` is given on the first turn only."""
        if system and not self.system:
            self._refuse_system()
        pattern = self.system if system else self.user
        # Not str.format: what users type may contain braces.
        before, _, after = pattern.partition("{user}")
        before, after = (part.replace("{system}", system or "") for part in (before, after))
        return before + text + after

    def render_messages(self, messages: list[dict[str, str]]) -> str:
        """A whole conversation and the beginning of the answer; messages have a role and a content."""
        from llama2_host.chat import jinja_template
        if self.broken:
            raise TemplateError(self.broken)
        return jinja_template.render(self.jinja, messages, self.special_texts)

    def check(self, system: str | None) -> None:
        """Complain before the first turn."""
        if not self.jinja:
            self.render("", system)
            return
        probe = "\N{SYMBOL FOR START OF TEXT}"
        rendered = self.render_messages([{"role": "system", "content": probe}] * bool(system)
                                        + [{"role": "user", "content": "x"}])
        if system and probe not in rendered:
            self._refuse_system()

    def resolved(self, tokenizer) -> "Template":
        """With the ids of this vocabulary where the template leaves them open."""
        stops, left_out = self.stops, ()
        if not stops or self.stop_tokens:
            for text in self.stop_tokens:
                if tokenizer is None or text not in tokenizer.specials:
                    raise TemplateError(f"the {self.name} template ends a turn with {text}, which the vocabulary does "
                                        "not have: choose the --template that the model was trained with")
            ids = (*stops, *(tokenizer.specials[text] for text in self.stop_tokens),
                   *(tokenizer.stop_ids if tokenizer is not None else STOP_IDS))
            ids = tuple(dict.fromkeys(ids))
            stops, left_out = ids[:MAX_STOPS], ids[MAX_STOPS:]
        special = special_texts(tokenizer) if tokenizer is not None else {}
        return replace(self, stops=stops, left_out=left_out, special_texts=special or self.special_texts)

    def follow(self, before: str, turn: str) -> str:
        """The text of a turn as it follows the text before it: a line that is the whole turn begins a word of its
        own."""
        apart = self.user == "{user}" and before and turn and not before[-1].isspace() and not turn[0].isspace()
        return " " + turn if apart else turn

    def to_text(self) -> str:
        """The text for the image's template section."""
        default = asdict(PLAIN)
        fields = {name: value for name, value in asdict(self).items()
                  if name == "name" or value != default[name] and name not in ("left_out", "broken")}
        return json.dumps(fields, ensure_ascii=False)

    @classmethod
    def from_text(cls, text: str) -> "Template":
        """A built-in name, Jinja, or JSON with this class's fields; nothing at all is the plain template."""
        text = text.strip()
        if not text:
            return PLAIN
        if text in BUILT_IN:
            return BUILT_IN[text]
        if text[0] != "{" or text[:2] in ("{%", "{{", "{#"):
            if "{%" in text or "{{" in text:
                return cls.from_jinja(text)
        try:
            template = cls(**{name: _typed(name, value) for name, value in nested_json.loads(text).items()})
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise TemplateError(f"not a chat template: {text[:40]!r}... ({error}): use {', '.join(BUILT_IN)}, Jinja "
                                "or JSON as docs/host.md shows") from error
        if template.jinja:
            from llama2_host.chat import jinja_template
            jinja_template.check(template.jinja)
            return template
        for pattern in filter(None, (template.user, template.system)):
            if pattern.count("{user}") != 1:
                raise TemplateError(f"the chat template {template.name!r} must contain {{user}} once per pattern")
        return template

    @classmethod
    def from_jinja(cls, source: str) -> "Template":
        """A template as models bring it along."""
        from llama2_host.chat import jinja_template
        jinja_template.check(source)
        return cls("jinja", jinja=source, restarts=False)

    @classmethod
    def brought(cls, source: str) -> "Template":
        """A template that came with a model; an error in it is reported only when a chat needs it."""
        try:
            return cls.from_jinja(source)
        except HostError as error:
            return cls("jinja", jinja=source, restarts=False, broken=str(error))

    @classmethod
    def stored(cls, text: str) -> "Template":
        """The template that :meth:`to_text` wrote; Jinja that does not compile came with a model, see
        :meth:`brought`."""
        try:
            return cls.from_text(text)
        except HostError as error:
            try:
                source = nested_json.loads(text).get("jinja")
            except (ValueError, AttributeError, RecursionError):
                source = None
            if not isinstance(source, str) or not source:
                raise
            return cls("jinja", jinja=source, restarts=False, broken=str(error))

    def _refuse_system(self):
        raise TemplateError(f"the {self.name} template has no place for a system prompt: leave --system out, "
                            "or choose --template llama2 or chatml for a model trained with it")


def _typed(name: str, value):
    """The value of a field in a template's JSON, converted to the field's type in this class."""
    kind = type(getattr(PLAIN, name)) if name in PLAIN.__dataclass_fields__ else None
    if name == "special_texts":
        if isinstance(value, list) and len(value) == 2:         # as images of version 0.1 have it
            value = {role: text for role, text in zip(("bos_token", "eos_token"), value) if text}
        if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
            return value
        raise ValueError(f"{name} is {str(value)[:20]!r}")
    if name in ("left_out", "broken"):
        raise ValueError(f"{name} is no field of a template's text")
    if kind is tuple and isinstance(value, list):
        item = int if name == "stops" else str
        if all(isinstance(element, item) and not isinstance(element, bool) for element in value) \
                and (name != "stops" or len(value) <= MAX_STOPS and all(0 <= id < 1 << 32 for id in value)):
            return tuple(value)
    elif kind is not tuple and isinstance(value, kind or object):
        return value
    raise ValueError(f"{name} is {str(value)[:20]!r}")


def special_texts(tokenizer) -> dict[str, str]:
    """The texts of a tokenizer's special tokens, by the names that templates use."""
    if tokenizer.special_texts is not None:
        return tokenizer.special_texts
    texts = {id: text for text, id in tokenizer.specials.items()}
    return {role: texts[id] for role, id in (("bos_token", tokenizer.bos_id), ("eos_token", tokenizer.eos_id))
            if id in texts}


PLAIN = Template()
#: Ref: Touvron et al. 2023, Llama 2, and llama2.c's chat mode
LLAMA2 = Template("llama2", "[INST] {user} [/INST]", "[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST]",
                  bos_every_turn=True, stops=(2,), restarts=False)
#: Ref: OpenAI's Chat Markup Language
CHATML = Template("chatml", restarts=False, stop_tokens=("<|im_end|>",), jinja=(
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"))
BUILT_IN = {"plain": PLAIN, "llama2": LLAMA2, "chatml": CHATML}
