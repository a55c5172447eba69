"""Chat templates: the text around what a user types, as the model was trained to see it."""
import json
from dataclasses import asdict, dataclass

from host.errors import HostError
from host.generation import STOP_IDS


class TemplateError(HostError):
    """Not a chat template."""


@dataclass(frozen=True)
class Template:
    """How a turn is written. ``{user}`` and ``{system}`` stand for what the user typed and the system prompt."""
    name: str = "plain"
    user: str = "{user}"                #: a turn
    system: str = ""                    #: the first turn when there is a system prompt; empty: the model takes none
    bos_every_turn: bool = False        #: BOS before every turn, not only the first
    stops: tuple[int, ...] = STOP_IDS   #: ids that end an answer
    restarts: bool = True               #: an answer that ended with a stop token was a whole story: begin anew

    def render(self, text: str, system: str | None = None) -> str:
        """One turn as text; ``system`` is given on the first turn only."""
        if system and not self.system:
            raise TemplateError(f"the {self.name} template has no place for a system prompt: leave --system out, "
                                "or choose --template llama2 for a chat model")
        pattern = self.system if system else self.user
        # Not str.format: what users type may contain braces.
        before, _, after = pattern.partition("{user}")
        return before.replace("{system}", system or "") + text + after

    def to_text(self) -> str:
        """For the image's template section."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_text(cls, text: str) -> "Template":
        """A built-in name, or JSON with this class's fields; nothing at all is the plain template."""
        text = text.strip()
        if not text:
            return PLAIN
        if text in BUILT_IN:
            return BUILT_IN[text]
        try:
            fields = json.loads(text)
            template = cls(**{**fields, "stops": tuple(int(id) for id in fields.get("stops", STOP_IDS))})
        except (ValueError, TypeError, AttributeError) as error:
            raise TemplateError(f"not a chat template: {text[:40]!r}... ({error}): use {', '.join(BUILT_IN)} "
                                "or JSON as docs/host.md shows") from error
        for pattern in filter(None, (template.user, template.system)):
            if pattern.count("{user}") != 1:
                raise TemplateError(f"the chat template {template.name!r} must contain {{user}} once per pattern")
        return template


PLAIN = Template()
#: Ref: Touvron et al. 2023, Llama 2, and llama2.c's chat mode
LLAMA2 = Template("llama2", "[INST] {user} [/INST]", "[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST]",
                  bos_every_turn=True, stops=(2,), restarts=False)
BUILT_IN = {"plain": PLAIN, "llama2": LLAMA2}
