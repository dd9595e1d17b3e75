"""Columns: layouts told apart by what a file has, columns mapped by name, and nothing guessed."""

import pytest

from llmad import columns
from llmad.errors import DataError, UsageError
from llmad.table import Entry


def table(*rows):
    return [Entry(number, row) for number, row in enumerate(rows, 1)]


def named(names):
    return dict.fromkeys(names.split(), "x")


def layout(names, split="train", **given):
    found = columns.shape("here", table(named(names)), split, given)
    return found and found.layout


@pytest.mark.parametrize(
    ("names", "split", "wanted"),
    [
        ("instruction output", "train", "instruction"),
        ("instruction input output answer id", "train", "instruction"),
        ("instruction answer", "test", "instruction"),
        ("prompt completion", "train", "completion"),
        ("prompt answer", "test", "completion"),
        ("messages", "train", "chat"),
        ("conversations id", "train", "chat"),
        ("messages answer", "test", "chat"),
        ("instruction input output prompt", "train", "instruction"),
        ("prompt prompt_id messages", "train", "chat"),
        ("instruction output", "test", None),
        ("prompt messages", "test", None),
        ("question answer", "train", None),
    ],
)
def test_a_layout_is_known_by_its_columns(names, split, wanted):
    assert layout(names, split) == wanted


def test_a_mapped_column_is_the_wanted_one():
    found = columns.shape(
        "here", table(named("question solution id")), "train", {"instruction": "question", "output": "solution"}
    )
    assert found.cells(Entry(1, {"question": "1?", "solution": "1", "id": 7})) == {"instruction": "1?", "output": "1"}
    assert layout("text reply", prompt="text", completion="reply") == "completion"
    assert layout("chat id", messages="chat") == "chat"


def test_columns_may_change_places():
    given = {"instruction": "output", "output": "instruction"}
    found = columns.shape("here", table(named("instruction output")), "train", given)
    assert found.cells(Entry(1, {"instruction": "a", "output": "b"})) == {"instruction": "b", "output": "a"}


def test_a_column_that_is_given_for_another_is_no_longer_itself():
    given = {"instruction": "question", "output": "answer"}
    found = columns.shape("here", table(named("question answer")), "train", given)
    assert found.cells(Entry(1, {"question": "a", "answer": "b"})) == {"instruction": "a", "output": "b"}
    assert layout("question answer", "test", **given) is None


def test_a_layout_may_be_chosen_where_there_are_two():
    with pytest.raises(
        DataError, match="two layouts in one file: row 1 has instruction, output; row 1 has messages"
    ) as error:
        layout("instruction output messages")
    assert error.value.hint.endswith("such as --columns instruction=instruction")
    assert layout("instruction output messages", messages="messages") == "chat"
    assert layout("instruction output messages", output="output") == "instruction"


def test_two_layouts_in_one_file_are_refused():
    rows = table(named("instruction output"), named("instruction output"), named("prompt completion"))
    with pytest.raises(DataError, match="row 1 has instruction, output; row 3 has prompt, completion"):
        columns.shape("here", rows, "train", {})


def test_a_given_column_that_is_not_there_is_told_with_the_nearest():
    with pytest.raises(UsageError, match="here: no row has a column 'qestion'") as error:
        layout("question output", instruction="qestion")
    assert error.value.hint.startswith("did you mean question?")


def test_a_given_column_that_collides_is_refused():
    with pytest.raises(UsageError, match="here has a column 'instruction' already; 'question' cannot stand for it"):
        layout("instruction question output", instruction="question")


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("instruction=question", {"instruction": "question"}),
        (" instruction = question , output=the answer=x", {"instruction": "question", "output": "the answer=x"}),
    ],
)
def test_columns_are_parsed(text, given):
    assert columns.parse(text) == given


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not WANTED=COLUMN"),
        ("instruction", "is not WANTED=COLUMN"),
        ("instruction=", "is not WANTED=COLUMN"),
        ("=x", "is not WANTED=COLUMN"),
        ("instruction=a,instruction=b", "names a column twice"),
        ("instructions=a", "there is no column 'instructions' to map; did you mean instruction"),
        ("context=a", "there is no column 'context' to map"),
        ("instruction=a,output=a", "one column is given for two"),
        ("instruction=a,completion=b", "instruction and completion are of different layouts"),
        ("messages=a,input=b", "messages and input are of different layouts"),
    ],
)
def test_columns_that_cannot_be_meant_are_refused(text, said):
    with pytest.raises(ValueError) as error:  # noqa: PT011  the words are compared below, as they stand
        columns.parse(text)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("names", "split", "said", "option"),
    [
        ("Instruction Output", "train", "none 'instruction'", "instruction=Instruction,output=Output"),
        ("instructions output", "train", "'instructions'", "instruction=instructions"),
        ("instruction Input output", "train", "a column 'Input' and none 'input'", "input=Input"),
        ("instruction inputs answer", "test", "a column 'inputs' and none 'input'", "input=inputs"),
        ("instruction Answer", "test", "a column 'Answer' and none 'answer'", "answer=Answer"),
        ("Prompt completions", "train", "'Prompt'", "prompt=Prompt,completion=completions"),
        ("message", "train", "a column 'message' and none 'messages'", "messages=message"),
        ("Conversation", "train", "a column 'Conversation' and none 'conversations'", "messages=Conversation"),
    ],
)  # fmt: skip
def test_a_column_that_is_near_is_not_taken_and_not_dropped(names, split, said, option):
    rows = table(named(names))
    one = columns.shape("here", rows, split, {}) or columns.likeliest(rows, split, {})
    with pytest.raises(DataError) as error:
        columns.check_near("here", rows, split, one)
    assert said in str(error.value)
    assert f"--columns '{option}'" in error.value.hint
    mapped = columns.parse(option)
    assert columns.shape("here", rows, split, mapped)


def test_a_near_column_of_one_row_is_not_dropped_either():
    rows = table(named("instruction input output"), named("instruction Input output"))
    with pytest.raises(DataError, match="a column 'Input' and none 'input'"):
        columns.check_near("here", rows, "train", columns.shape("here", rows, "train", {}))


@pytest.mark.parametrize(
    "names", ["instruction output Answer", "instruction output input Input", "instruction output input_ids"]
)
def test_a_column_that_is_not_needed_may_be_called_what_it_likes(names):
    rows = table(named(names))
    columns.check_near("here", rows, "train", columns.shape("here", rows, "train", {}))


def test_the_hint_says_what_there_is_and_how_to_map_it():
    rows = table(named("problem completions_"))
    one = columns.likeliest(rows, "train", {})
    assert columns.hint(rows, "train", one) == (
        "rows have completions_, problem; wanted are prompt, completion, answer; map one with --columns prompt=problem"
    )
