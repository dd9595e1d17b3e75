"""Which prompt a run or an adapter has."""

import json
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import pytest
from tokenizers.processors import TemplateProcessing

from llmad import Prompt, data
from llmad.errors import ModelError, UsageError
from llmad.prompting import choose, record, recorded
from llmad.registry import registry
from tests.core.test_prompt import CHATML

PLACE = Path("llmad.json")


@pytest.fixture
def chatty(tokenizer):
    own = deepcopy(tokenizer)
    own.chat_template = CHATML
    return own


def test_prompts_have_names(chatty):
    task = registry().task("arithmetic")
    assert choose("task", task, None) == task.prompt
    assert choose("verbatim", task, None).ask({"instruction": " 1 "}) == " 1 "
    chat = choose("chat", task, chatty)
    assert chat.ask({"instruction": "1?"}) == "<bos><|user|>1?<eos>\n<|assistant|>"


def test_a_tokenizer_without_a_template_cannot_chat(tokenizer):
    with pytest.raises(UsageError, match="has no chat template") as error:
        choose("chat", registry().task("arithmetic"), tokenizer)
    assert "prompt=task" in error.value.hint


def test_several_templates_are_not_one(chatty):
    chatty.chat_template = {"default": CHATML, "tool_use": CHATML}
    with pytest.raises(UsageError, match="it has several"):
        choose("chat", registry().task("arithmetic"), chatty)


def test_a_task_without_a_released_script_has_no_prompt_of_it():
    with pytest.raises(UsageError, match="do not know task arithmetic"):
        choose("paper", registry().task("arithmetic"), None)


@pytest.mark.parametrize("prompt", [Prompt("Q {instruction}", lead=" "), Prompt("{instruction}", template=CHATML)])
def test_what_is_recorded_is_read_again(prompt):
    about = json.loads(json.dumps(record(prompt)))
    assert recorded(about, PLACE) == prompt
    assert recorded(about, PLACE).fingerprint() == prompt.fingerprint()


def test_an_adapter_that_says_nothing_has_no_prompt():
    assert recorded({}, PLACE) is None


def test_another_prompt_than_the_recorded_one_is_refused():
    about = record(Prompt("Q {instruction}")) | {"prompt": asdict(Prompt("Another {instruction}"))}
    with pytest.raises(ModelError, match="the prompt is not the one"):
        recorded(about, PLACE)


def test_a_chat_is_trained_and_asked_with_one_beginning(chatty):
    prompt = choose("chat", registry().task("arithmetic"), chatty)
    row = {"instruction": "1?", "input": "", "output": "one"}
    (example,) = data.encode([row], prompt, _begins(chatty), 64).examples
    (asked,) = data.token_ids(_begins(chatty), [prompt.ask(row)])
    assert example.ids[: len(asked)] == tuple(asked)
    assert asked.count(chatty.bos_token_id) == 1
    assert example.ids.count(chatty.eos_token_id) == 2  # the user's turn and the reply's
    assert example.ids[-1] == chatty.eos_token_id
    assert example.labelled[-1]
    learnt = [token for token, own in zip(example.ids, example.labelled, strict=True) if own]
    assert chatty.decode(learnt) == "one<eos>"


def _begins(tokenizer):
    """The tokenizer, adding a beginning of its own as LLaMA's does."""
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    return tokenizer


def test_one_beginning_of_a_plain_question_stays(tokenizer):
    own = _begins(deepcopy(tokenizer))
    (ids,) = data.token_ids(own, ["1?"])
    assert ids[0] == own.bos_token_id
