"""Task: what is asked, how an answer is read, and when it is right."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from llmad.errors import DataError
from llmad.prompt import Prompt

Split = Literal["train", "test"]


class Judge(Protocol):
    """Reads answers and compares them."""

    def read(self, text: str, protocol: str) -> str | None:
        """The answer that `text` gives, None where it gives none."""

    def agree(self, answer: str, gold: str) -> bool:
        """Whether the answer is right."""


class Settling(Judge, Protocol):
    """A judge that also sees when a text has given its answer, so that the model need not write on."""

    def settled(self, text: str) -> bool:
        """Whether the text has declared an answer that no further character would change, as `strict` reads it."""


@dataclass(frozen=True)
class Released:
    """How the scripts released with the paper ask: what the `paper` protocol does.

    Attributes:
        trained: the prompt of their training script.
        asked: the prompt of their scoring script.
        num_beams: of their beam search.
        max_new_tokens: how long an answer may be there.
        quirks: what else they do that `strict` does not, a sentence each; every result lists them.
    """

    trained: Prompt
    asked: Prompt
    num_beams: int
    max_new_tokens: int
    quirks: tuple[str, ...]


@dataclass(frozen=True)
class Hub:
    """A data set on the hub.

    Attributes:
        dataset: its id, `owner/name`.
        revision: the commit that is read; empty where none is pinned, then the user must give one.
        split: the name of the split there.
        config: the name of its configuration, where it has several.
    """

    dataset: str
    revision: str
    split: str
    config: str | None = None


@dataclass(frozen=True)
class Task:
    """A task; a plugin returns it from `llmad_tasks`.

    Attributes:
        name: what users type.
        summary: one line.
        prompt: the form of the question.
        judge: given the gold answer of a row, what reads and compares the model's answer to it.
        files: split to the path of its rows inside a data folder.
        generate: makes `count` rows of a split from a seed, for tasks that need no files.
        train_rows: how many rows to generate for training.
        max_new_tokens: how long an answer may be.
        convert: makes a row (`instruction`, `input`, `output`, `answer`) of an entry in the data set's own layout;
            None of an entry that is not in it.
        hub: split to where the data set is on the hub; its entries go through `convert`.
        released: how the paper's scripts ask, for the `paper` protocol; only its reading of answers where None.
    """

    name: str
    summary: str
    prompt: Prompt
    judge: Callable[[str], Judge]
    files: Mapping[Split, str] = field(default_factory=dict)
    generate: Callable[[Split, int, int], list[dict[str, str]]] | None = None
    train_rows: int = 0
    max_new_tokens: int = 256
    convert: Callable[[Mapping[str, Any]], dict[str, str] | None] | None = None
    hub: Mapping[Split, Hub] = field(default_factory=dict)
    released: Released | None = None

    def rows(self, split: Split, count: int, seed: int) -> list[dict[str, str]]:
        """Generate rows.

        Raises:
            DataError: the task's rows come from files.
        """
        if self.generate is None:
            raise DataError(
                "no-rows",
                f"the rows of task {self.name} come from a file",
                f"give --data FILE, or --data DIR with {self.files.get(split, 'the file')} in it",
            )
        return self.generate(split, count, seed)

    def describe(self) -> dict[str, Any]:
        """The task as plain data, for JSON."""
        return {"name": self.name, "summary": self.summary, "files": dict(self.files)}
