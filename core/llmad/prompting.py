"""Prompting: which prompt a run or an adapter has."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from llmad.columns import Layout
from llmad.errors import ModelError, UsageError
from llmad.prompt import Prompt
from llmad.task import Task

Choice = Literal["task", "verbatim", "chat", "paper"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
_CALLED_FOR: dict[Layout, Choice] = {"completion": "verbatim", "chat": "chat"}
_VERBATIM = Prompt(question="{instruction}", verbatim=True)


def called_for(layout: Layout) -> Choice:
    """The prompt that rows of a layout call for: `completion` as it stands, `chat` in a template, else the task's."""
    return _CALLED_FOR.get(layout, "task")


def choose(choice: Choice, task: Task, tokenizer: Any) -> Prompt:
    """A prompt by name: the task's own, the text as it stands, the tokenizer's chat template, the released script's.

    Raises:
        UsageError: the tokenizer has no chat template, or the task no released script.
    """
    match choice:
        case "task":
            return task.prompt
        case "verbatim":
            return _VERBATIM
        case "chat":
            return chat(tokenizer)
        case "paper":
            if task.released is None:
                raise UsageError("no-prompt", f"prompt: the paper's scripts do not know task {task.name}")
            return task.released.trained


def chat(tokenizer: Any) -> Prompt:
    """The tokenizer's chat template as a prompt; a row without a conversation is what the user says.

    Raises:
        UsageError: it has none.
    """
    template = tokenizer.chat_template
    if not isinstance(template, str):
        reason = "prompt: the backbone's tokenizer has no chat template" if not template else "prompt: it has several"
        raise UsageError("no-template", reason, "choose prompt=task, or an instruction-tuned backbone")
    tokens = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    return Prompt("{instruction}", "{instruction}\n\n{input}", template=template, tokens=tokens)


def record(prompt: Prompt) -> dict[str, Any]:
    """What an adapter directory says of its prompt."""
    return {"prompt": asdict(prompt), "prompt_fingerprint": prompt.fingerprint()}


def recorded(about: Mapping[str, Any], place: Path) -> Prompt | None:
    """The prompt that an adapter was trained with; None where its directory does not say.

    Args:
        about: what `llmad.json` says.
        place: the file, for the error.

    Raises:
        ModelError: it is no prompt, or not the one whose fingerprint is recorded beside it.
    """
    if not about.get("prompt"):
        return None
    try:
        prompt = Prompt(**about["prompt"])
        TypeAdapter(Prompt).validate_python(about["prompt"], strict=False)  # the texts are texts
        fingerprint = prompt.fingerprint()
    except (TypeError, ValidationError):
        raise ModelError("broken-adapter", f"{place}: 'prompt' is no prompt") from None
    if about.get("prompt_fingerprint") not in (None, fingerprint):
        reason = f"{place}: the prompt is not the one that the adapter was trained with: its fingerprint differs"
        raise ModelError("other-prompt", reason, "restore the file, or name a prompt with --prompt")
    return prompt
