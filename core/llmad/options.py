"""Options: a named, validated config, and its text form `name[option=value,...]`."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from llmad import strict_yaml
from llmad.errors import UsageError, nearest

_TEXT = re.compile(r"(?P<name>[A-Za-z0-9][\w.:-]*)\s*(\[(?P<options>.*)\])?", re.DOTALL)


class Options(BaseModel):
    """Base class of what users name together with options: a frozen, validated config.

    Attributes:
        name: what users type.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    name: ClassVar[str]

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().partition("\n")[0]

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> Self:
        """Validate options.

        Raises:
            UsageError: every wrong option in one line.
        """
        try:
            return cls.model_validate({name: _table(value) for name, value in options.items()})
        except ValidationError as error:
            known = list(cls.model_fields)
            raise UsageError("bad-option", *_explain(cls.name, error, known)) from None

    def options(self) -> dict[str, Any]:
        """The options as plain data."""
        return self.model_dump(mode="json")

    def in_full(self) -> str:
        """The text form with every option, so that it means the same where the defaults are others."""
        return self._text(list(type(self).model_fields))

    def __str__(self) -> str:
        fields = type(self).model_fields.items()
        return self._text(
            [n for n, field in fields if getattr(self, n) != field.get_default(call_default_factory=True)]
        )

    def _text(self, names: list[str]) -> str:
        options = ",".join(f"{name}={word(getattr(self, name))}" for name in names)
        return f"{self.name}[{options}]" if options else self.name


def split(text: str, what: str) -> tuple[str, dict[str, str]]:
    """Take `name[option=value,...]` apart, without knowing what is named; `what` says it in errors.

    Raises:
        UsageError: the text does not have that form.
    """
    match = _TEXT.fullmatch(text.strip())
    if not match:
        raise UsageError("bad-spec", f"{text!r} is no {what}", "write name or name[option=value,...]")
    options: dict[str, str] = {}
    for item in _items(match["options"] or ""):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not (name and equals and value):
            raise UsageError("bad-spec", f"{item!r} in {text!r} is not option=value")
        if name in options:
            raise UsageError("bad-spec", f"{name!r} stands twice in {text!r}")
        options[name] = value
    return match["name"], options


def word(value: Any) -> str:
    """The value of an option as it is written in the text form."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _table(value: Any) -> Any:
    """The text `{key: value}` as a table; anything else as it is."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            return strict_yaml.parse(value)
        except (ValueError, yaml.YAMLError):
            return value  # the option itself will say what it wants
    return value


def _items(options: str) -> list[str]:
    """Split at the commas that no bracket encloses."""
    items, depth = [""], 0
    for character in options:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            items.append("")
        else:
            items[-1] += character
    return [item for item in items if item.strip()]


def _explain(name: str, error: ValidationError, known: list[str]) -> tuple[str, str]:
    """One line for everything that is wrong, and a hint for the first unknown option."""
    unknown = [str(item["loc"][0]) for item in error.errors() if item["type"] == "extra_forbidden"]
    faults = [
        f"no option {item['loc'][0]!r}"
        if item["type"] == "extra_forbidden"
        else ": ".join((*map(str, item["loc"][:1]), item["msg"].removeprefix("Value error, ")))
        for item in error.errors()
    ]
    return f"{name}: {'; '.join(dict.fromkeys(faults))}", nearest(unknown[0], known) if unknown else ""
