"""What is known of the training rows before the first step."""

from llmad import Prompt, data
from llmad.checks import check

PROMPT = Prompt("Q {instruction}")
ROWS = [
    {"instruction": "1?", "output": "one"},
    {"instruction": "1? ", "output": "one"},
    {"instruction": "2?", "output": ""},
    {"instruction": "3?" * 50, "output": "three"},
]


def test_rows_are_counted(tokenizer):
    encoded = data.encode(ROWS, PROMPT, tokenizer, 40)
    found = check(ROWS, encoded, {"t": [{"instruction": "2?"}, {"instruction": "9?"}]})
    assert (found.rows, found.left_out, found.empty, found.repeated) == (3, 1, 1, 1)
    assert 0 < found.share == found.trained_tokens / found.tokens < 1
    assert [(one.task, one.n, one.exact, one.masked) for one in found.leaks] == [("t", 2, 1, 2)]
    assert len(found.warnings()) == 3


def test_nothing_is_said_of_rows_that_have_nothing_amiss(tokenizer):
    rows = [{"instruction": "1?", "output": "one"}]
    assert check(rows, data.encode(rows, PROMPT, tokenizer, 40), {"t": [{"instruction": "two?"}]}).warnings() == []


def test_every_row_ends_with_a_learnt_end(tokenizer):
    for example in data.encode(ROWS, PROMPT, tokenizer, 400).examples:
        assert example.ids[-1] == tokenizer.eos_token_id
        assert example.labelled[-1]
