"""The words around each turn of a conversation that a model was tuned with: the Jinja template in
``tokenizer_config.json``, or ``chat_template.jinja`` beside it, rendered as ``transformers`` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from gptcls.core.errors import InputError
from gptcls.models.weight_files import read_object

FILE, SETTINGS = "chat_template.jinja", "tokenizer_config.json"
NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")  # which a template may write
Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class ChatTemplate:
    """``names`` are special tokens by their role.

    >>> turns = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    >>> chat = ChatTemplate(turns + "{% if add_generation_prompt %}<assistant>{% endif %}")
    >>> chat.render([{"role": "user", "content": "Who?"}], True)
    '<user>Who?</s><assistant>'
    """

    source: str
    names: dict[str, str] = field(default_factory=dict)

    @cached_property
    def _template(self) -> Any:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise InputError(f"the model's chat template refuses: {message:.200}")

        # As transformers' chat_template_utils.py: a stranger wrote the template, so it may call nothing.
        blocks = {"trim_blocks": True, "lstrip_blocks": True}
        environment = ImmutableSandboxedEnvironment(**blocks, extensions=["jinja2.ext.loopcontrols"])
        environment.globals["raise_exception"] = refuse
        return environment.from_string(self.source)

    def render(self, messages: Messages, add_generation_prompt: bool = False) -> str:
        """The conversation as one text; InputError where the template cannot."""
        from jinja2 import TemplateError

        try:
            asked = {"messages": messages, "add_generation_prompt": add_generation_prompt}
            return self._template.render(**asked, **self.names)
        except (TemplateError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the model's chat template fails ({error!s:.150}); add --chat none") from None


def read_chat(folder: Path) -> ChatTemplate | None:
    """The template in a model's folder, of several the one called default; None where there is none."""
    settings = read_object(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    source = settings.get("chat_template")
    if (folder / FILE).is_file():
        source = (folder / FILE).read_text(encoding="utf-8")
    if isinstance(source, list):
        named = {x.get("name"): x.get("template") for x in source if isinstance(x, dict)}
        source = named.get("default")
    if not isinstance(source, str):
        return None
    given = ((name, settings.get(name)) for name in NAMES)
    contents = ((name, x.get("content") if isinstance(x, dict) else x) for name, x in given)
    return ChatTemplate(source, {name: x for name, x in contents if isinstance(x, str)})
