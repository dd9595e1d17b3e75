"""Rationales of a teacher: what is asked, what is kept, and a run that is stopped anywhere ends the same."""

import json
import threading
from dataclasses import dataclass, field, replace

import pytest

from llmad import rows as row_files
from llmad.distill import distill, questions
from llmad.endpoint import Endpoint
from llmad.errors import DataError, ModelError, ResumeError, StorageError, UsageError
from llmad.local_teacher import LocalTeacher, local_teacher
from llmad.registry import registry
from llmad.task import Prompt, Task
from llmad.teacher import Reply
from tests.stub_endpoint import status, stub


@dataclass(frozen=True)
class Number:
    """Reads `The answer is N.` and compares words: a judge that is no built-in one."""

    def read(self, text, protocol):
        assert protocol == "strict"
        _, declared, rest = text.rpartition("The answer is ")
        return rest.partition(".")[0] if declared else None

    def agree(self, answer, gold):
        return answer == gold


@dataclass
class Parrot:
    """Says what it was told to say to a question, in groups of two; breaks after so many replies."""

    replies: dict
    lasts: float = float("inf")
    at_once: int = 1
    name: str = "parrot"
    heard: list = field(default_factory=list)

    def identity(self):
        return {"teacher": self.name}

    def groups(self, dialogues):
        return [list(range(len(dialogues)))[start : start + 2] for start in range(0, len(dialogues), 2)]

    def reply(self, dialogues, max_new_tokens):
        if len(self.heard) >= self.lasts:
            raise ModelError("gone", "the parrot is gone")
        self.heard += [(dialogue, max_new_tokens) for dialogue in dialogues]
        said = [self.replies[(dialogue[0].split()[1], len(dialogue))] for dialogue in dialogues]
        return [one if isinstance(one, Reply) else Reply(one, True) for one in said]


TASK = Task("words", "Words", Prompt("{instruction}"), lambda gold: Number())
ROWS = [{"instruction": name, "input": "", "answer": name.upper()} for name in "abcdefg"]
REPLIES = {
    ("a", 1): " I think. The answer is A. ",
    ("b", 1): "The answer is C.",
    ("c", 1): "Hm.",
    ("c", 3): "C.",
    ("d", 1): Reply("The answer is D.", False),
    ("e", 1): "Hm.",
    ("e", 3): "\n",
    ("f", 1): "",
    ("g", 1): 'Ä "quoted"\nline\u2028. The answer is G.',
}
RIGHT = [("a", "I think. The answer is A."), ("c", "Hm. The answer is C."), ("g", REPLIES["g", 1])]


@pytest.fixture
def output(tmp_path):
    return tmp_path / "new" / "rationales.json"


def journal_of(output):
    return output.parent / f"{output.name}.journal.jsonl"


def run(output, teacher=None, **options):
    teacher = teacher or Parrot(REPLIES)
    return distill(TASK, ROWS, output, lambda: teacher, **options)


def rationales(output):
    return [(row["instruction"], row["output"]) for row in row_files.read(output, "train").rows]


def test_right_rationales_are_kept_in_the_papers_layout(output):
    found = run(output)
    assert rationales(output) == RIGHT
    assert json.loads(output.read_text())[0] == {"instruction": "a", "input": "", "output": RIGHT[0][1], "answer": "A"}
    assert found.describe() == {
        "task": "words", "teacher": "parrot", "output": str(output), "rows": 7, "resumed": 0,
        "verdicts": {"right": 3, "wrong": 1, "no answer": 2, "cut off": 1}, "kept": 3,
    }  # fmt: skip
    assert not journal_of(output).exists()


def test_wrong_ones_are_kept_where_asked_for_but_none_unfinished_or_empty(output):
    run(output, keep_wrong=True)
    assert [name for name, _ in rationales(output)] == ["a", "b", "c", "e", "g"]


def test_json_lines_are_written_where_the_name_says_so(output):
    run(output.with_suffix(".jsonl"))
    assert rationales(output.with_suffix(".jsonl")) == RIGHT


def test_the_second_question_is_short_and_asked_of_those_without_an_answer(output):
    teacher = Parrot(REPLIES)
    run(output, teacher, max_new_tokens=99)
    assert [(words[0].split()[1], limit) for words, limit in teacher.heard if len(words) == 3] == [("c", 32), ("e", 32)]
    assert {limit for words, limit in teacher.heard if len(words) == 1} == {99}


def test_every_row_is_told_of(output):
    seen = []
    run(output, observe=seen.append)
    assert [(event.done, event.rows) for event in seen] == [(number, 7) for number in range(1, 8)]
    assert [event.verdict for event in seen][:3] == ["right", "wrong", "right"]


@pytest.mark.parametrize("lasts", range(9))
def test_a_run_that_stops_anywhere_ends_as_one_that_never_did(output, lasts, tmp_path):
    run(tmp_path / "whole.json")
    with pytest.raises(ModelError, match="the parrot is gone"):
        run(output, Parrot(REPLIES, lasts=lasts))
    assert not output.exists()
    teacher = Parrot(REPLIES)
    found = run(output, teacher)
    assert found.resumed == 7 - len([words for words, _ in teacher.heard if len(words) == 1])
    assert output.read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_a_journal_torn_anywhere_ends_the_same(output, tmp_path):
    run(tmp_path / "whole.json")
    with pytest.raises(ModelError):
        run(output, Parrot(REPLIES, lasts=6))
    journal = journal_of(output).read_bytes()
    for size in range(0, len(journal), 7):
        journal_of(output).write_bytes(journal[:size])
        run(output)
        assert output.read_bytes() == (tmp_path / "whole.json").read_bytes()
        output.unlink()


def test_a_group_that_is_known_in_part_is_asked_whole_and_recorded_once(output):
    with pytest.raises(ModelError):
        run(output, Parrot(REPLIES, lasts=2))
    lines = journal_of(output).read_text().splitlines(keepends=True)
    journal_of(output).write_text("".join(lines[:2]))
    teacher = Parrot({**REPLIES, ("a", 1): "another time. The answer is A."})
    found = run(output, teacher)
    assert {words[0].split()[1] for words, _ in teacher.heard} >= {"a", "b"}
    assert (found.resumed, rationales(output)) == (1, RIGHT)


def test_a_run_stopped_between_the_file_and_the_journals_end_goes_on(output, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr("llmad.ledger.Ledger.remove", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(output)
    assert output.exists()
    teacher = Parrot({})
    assert run(output, teacher).resumed == 7
    assert (teacher.heard, rationales(output)) == ([], RIGHT)


def test_an_output_that_is_there_is_refused_before_the_teacher_is_hired(output):
    output.parent.mkdir()
    output.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        distill(TASK, ROWS, output, lambda: pytest.fail("hired"))
    assert output.read_text() == "mine"


def test_an_output_beside_a_journal_that_is_not_whole_is_refused(output):
    with pytest.raises(ModelError):
        run(output, Parrot(REPLIES, lasts=6))
    output.write_text("mine")
    teacher = Parrot(REPLIES)
    with pytest.raises(UsageError, match="is there already"):
        run(output, teacher)
    assert (output.read_text(), teacher.heard) == ("mine", [])


def test_an_output_that_cannot_be_written_is_refused_before_the_teacher_is_hired(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="is in the way"):
        distill(TASK, ROWS, tmp_path / "file" / "out.json", lambda: pytest.fail("hired"))


def test_rows_that_nobody_gets_right_are_refused_before_the_teacher_is_hired(output):
    with pytest.raises(DataError, match=r"row 1: no text could be right"):
        distill(TASK, [{"instruction": "?", "answer": "a.b"}], output, lambda: pytest.fail("hired"))


@pytest.mark.parametrize(
    ("change", "differs"),
    [({"name": "other"}, "teacher"), ({"limit": 9}, "max_new_tokens"), ({"rows": ROWS[:3]}, "rows")],
)
def test_the_journal_of_another_run_is_refused(output, change, differs):
    with pytest.raises(ModelError):
        run(output, Parrot(REPLIES, lasts=4))
    before = journal_of(output).read_bytes()
    teacher = Parrot(REPLIES, name=change.get("name", "parrot"))
    with pytest.raises(ResumeError, match=f"of another run: {differs} "):
        distill(TASK, change.get("rows", ROWS), output, lambda: teacher, max_new_tokens=change.get("limit", 512))
    assert (journal_of(output).read_bytes(), teacher.heard) == (before, [])


@pytest.mark.parametrize(
    "entry",
    [{}, {"row": 99, "text": "", "finished": True, "second": None}, {"row": "0"},
     {"row": 0, "text": 1, "finished": True, "second": None}],
)  # fmt: skip
def test_a_journal_with_something_else_in_it_is_refused(output, entry):
    with pytest.raises(ModelError):
        run(output, Parrot(REPLIES, lasts=0))
    with journal_of(output).open("a") as stream:
        stream.write(json.dumps(entry) + "\n")
    with pytest.raises(ResumeError, match=r"journal\.jsonl:2: no reply to a row"):
        run(output)


def test_with_nothing_to_keep_there_is_no_file_and_the_replies_stay(output):
    wrong = {(name, 1): "The answer is Z." for name in "abcdefg"}
    with pytest.raises(DataError, match="no rationale of 7 is to be kept: 0 right, 7 wrong") as caught:
        run(output, Parrot(wrong))
    assert "--keep-wrong" in caught.value.hint
    assert not output.exists()
    assert run(output, Parrot({}), keep_wrong=True).kept == 7


def test_what_the_disk_does_not_hold_is_told_and_the_replies_stay(output, monkeypatch):
    monkeypatch.setattr("llmad.distill.write_text", lambda path, text: path.write_text(text[:-5]))
    with pytest.raises(StorageError, match="does not hold what was written"):
        run(output)
    assert journal_of(output).exists()


def test_replies_that_arrive_in_another_order_are_written_in_that_of_the_rows(output):
    last = threading.Event()

    def answer(messages):
        name = messages[0]["content"].split()[1]
        if name == "a":
            assert last.wait(20)
        if name == "g":
            last.set()
        return f"The answer is {name.upper()}."

    with stub(answer) as server:
        run(output, Endpoint(server.url, "m", at_once=2))
    assert [name for name, _ in rationales(output)] == list("abcdefg")


def test_an_endpoint_that_fails_loses_no_reply_that_it_gave(output):
    with stub(lambda messages: f"The answer is {messages[0]['content'].split()[1].upper()}.") as server:
        server.faults = [None, None, None, status(401)]
        with pytest.raises(ModelError, match=r"^row \d: .* answers 401"):
            run(output, Endpoint(server.url, "m", at_once=3))
        asked = len(server.seen) - 1
        found = run(output, Endpoint(server.url, "m", at_once=1))
        assert found.resumed == asked
        assert len(server.seen) == 7 + 1
    assert [name for name, _ in rationales(output)] == list("abcdefg")


def test_a_local_teacher_that_stops_anywhere_says_the_same(folder, tmp_path, monkeypatch):
    task, teacher, calls = registry().task("arithmetic"), local_teacher(folder, 3, 1.0, 0), []
    rows, replies = task.rows("train", 8, 0), LocalTeacher.reply

    def reply(self, dialogues, limit):
        if len(calls) == calls_left:
            raise KeyboardInterrupt
        calls.append(dialogues)
        return replies(self, dialogues, limit)

    def told(name):
        calls.clear()
        distill(task, rows, tmp_path / name, lambda: teacher, keep_wrong=True, max_new_tokens=12)
        return (tmp_path / name).read_bytes()

    monkeypatch.setattr("llmad.local_teacher.NEXT", "e")  # a random model does not end; let it
    monkeypatch.setattr(LocalTeacher, "reply", reply)
    calls_left = None
    whole, needed = told("whole.json"), len(calls)
    assert needed > 3  # batches: some are asked twice
    for calls_left in range(needed):
        with pytest.raises(KeyboardInterrupt):
            told(f"{calls_left}.json")
        name, calls_left = f"{calls_left}.json", None
        assert told(name) == whole


def test_rows_of_a_file_need_no_output(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"instruction": "1?", "answer": 1}] * 3))
    task = replace(TASK, files={"test": "words.json"})
    assert questions(task, "train", str(path), 2) == [{"instruction": "1?", "answer": "1"}] * 2
    assert len(questions(task, "train", str(path), None)) == 3


def test_rows_of_a_folder_are_those_of_the_split(tmp_path):
    (tmp_path / "words.json").write_text(json.dumps([{"instruction": "1?", "answer": "1"}]))
    task = replace(TASK, files={"test": "words.json"})
    assert len(questions(task, "test", str(tmp_path), None)) == 1
    with pytest.raises(DataError, match="task words has no train file in a folder"):
        questions(task, "train", str(tmp_path), None)
    with pytest.raises(DataError, match=r"train\.json: there is no such file"):
        questions(registry().task("math"), "train", str(tmp_path), None)


def test_rows_are_generated_where_there_is_no_file():
    task = registry().task("arithmetic")
    assert questions(task, "train", None, 3) == task.rows("train", 3, 0)
    assert len(questions(task, "train", None, None)) == task.train_rows
    assert len(questions(task, "test", None, None)) == 200
    with pytest.raises(DataError, match="come from a file"):
        questions(TASK, "train", None, 3)
