"""Chat templates: the text around what a user types, as the model was trained to see it."""
import json
from dataclasses import asdict, dataclass, replace

from host import nested_json
from host.errors import HostError
from host.generation import STOP_IDS
from spec.protocol import MAX_STOPS


class TemplateError(HostError):
    """Not a chat template."""


@dataclass(frozen=True)
class Template:
    """How a turn is written: a pattern in which ``{user}`` and ``{system}`` stand for texts, or Jinja over all messages."""
    name: str = "plain"
    user: str = "{user}"                #: a turn
    system: str = ""                    #: the first turn when there is a system prompt; empty: the model takes none
    bos_every_turn: bool = False        #: BOS before every turn, not only the first
    stops: tuple[int, ...] = ()         #: ids that end an answer; empty: the tokenizer's
    restarts: bool = True               #: an answer that ended with a stop token was a whole story: begin anew
    jinja: str = ""                     #: a template as tokenizer_config.json has it; goes before the patterns
    stop_tokens: tuple[str, ...] = ()   #: special tokens that end an answer, beside the tokenizer's ids
    special_texts: tuple[str, str] = ("", "")   #: how BOS and EOS are written, for Jinja

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
        from host import jinja_template
        bos, eos = self.special_texts
        return jinja_template.render(self.jinja, messages, bos_token=bos, eos_token=eos)

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
        stops = self.stops
        if not stops or self.stop_tokens:
            for text in self.stop_tokens:
                if tokenizer is None or text not in tokenizer.specials:
                    raise TemplateError(f"the {self.name} template ends a turn with {text}, which the vocabulary does not "
                                        "have: choose the --template that the model was trained with")
            ids = (*stops, *(tokenizer.specials[text] for text in self.stop_tokens),
                   *(tokenizer.stop_ids if tokenizer is not None else STOP_IDS))
            stops = tuple(dict.fromkeys(ids))[:MAX_STOPS]
        texts = {id: text for text, id in tokenizer.specials.items()} if tokenizer is not None else {}
        special = tuple(texts.get(id, "") for id in (tokenizer.bos_id, tokenizer.eos_id)) if texts else self.special_texts
        return replace(self, stops=stops, special_texts=special)

    def to_text(self) -> str:
        """For the image's template section."""
        default = asdict(PLAIN)
        fields = {name: value for name, value in asdict(self).items() if name == "name" or value != default[name]}
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
            from host import jinja_template
            jinja_template.check(template.jinja)
            return template
        for pattern in filter(None, (template.user, template.system)):
            if pattern.count("{user}") != 1:
                raise TemplateError(f"the chat template {template.name!r} must contain {{user}} once per pattern")
        return template

    @classmethod
    def from_jinja(cls, source: str) -> "Template":
        """A template as models bring it along."""
        from host import jinja_template
        jinja_template.check(source)
        return cls("jinja", jinja=source, restarts=False)

    def _refuse_system(self):
        raise TemplateError(f"the {self.name} template has no place for a system prompt: leave --system out, "
                            "or choose --template llama2 or chatml for a model trained with it")


def _typed(name: str, value):
    """A field of a template's JSON, of the type that the class has it in."""
    kind = type(getattr(PLAIN, name)) if name in PLAIN.__dataclass_fields__ else None
    if kind is tuple and isinstance(value, list):
        item = int if name == "stops" else str
        if all(isinstance(element, item) and not isinstance(element, bool) for element in value) \
                and (name != "special_texts" or len(value) == 2) \
                and (name != "stops" or len(value) <= MAX_STOPS and all(0 <= id < 1 << 32 for id in value)):
            return tuple(value)
    elif kind is not tuple and isinstance(value, kind or object):
        return value
    raise ValueError(f"{name} is {str(value)[:20]!r}")


PLAIN = Template()
#: Ref: Touvron et al. 2023, Llama 2, and llama2.c's chat mode
LLAMA2 = Template("llama2", "[INST] {user} [/INST]", "[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST]",
                  bos_every_turn=True, stops=(2,), restarts=False)
#: Ref: OpenAI's Chat Markup Language
CHATML = Template("chatml", restarts=False, stop_tokens=("<|im_end|>",), jinja=(
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"))
BUILT_IN = {"plain": PLAIN, "llama2": LLAMA2, "chatml": CHATML}
