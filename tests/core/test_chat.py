"""A trained adapter that answers a question at a time."""

import json
import shutil
from contextlib import contextmanager

import pytest
import torch

from llmad import evaluate
from llmad.chat import Chat, _Listener, chat
from llmad.errors import DataError, LlmadWarning, ModelError, UsageError
from llmad.exam import Manner
from llmad.prompt import Prompt
from llmad.registry import registry

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<reply>{% endif %}"
)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a run that may be written."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def open_chat(trained):
    return chat(trained)


@contextmanager
def heard(one):
    """What the model is given, as text."""
    asked = []

    def look(_, words, named):
        asked.append(one.base.tokenizer.decode(named["input_ids"][0]))

    with one.base.model.register_forward_pre_hook(look, with_kwargs=True):
        yield asked


def change(run, **values):
    about = run / "adapter" / "llmad.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | values))


def test_answers_are_those_of_an_evaluation(open_chat):
    task = registry().task("arithmetic")
    rows = task.rows("test", 3, 0)
    manner = Manner("strict", 20, stop=False)
    base = open_chat.base
    _, answers = evaluate.score(base.model, base.tokenizer, task, rows, open_chat.prompt, manner, batch_size=1)
    for row, answer in zip(rows, answers, strict=True):
        assert open_chat.answer(row["instruction"], max_new_tokens=20) == answer.output_pred


def test_the_pieces_are_the_answer(open_chat):
    pieces = []
    answer = open_chat.answer("Tom has 3 pears?", say=pieces.append, max_new_tokens=40)
    assert "".join(pieces) == answer
    assert len(pieces) > 5


def test_the_question_is_asked_in_the_prompt(open_chat):
    with heard(open_chat) as asked:
        Chat(open_chat.base, Prompt("Q {instruction} A"), open_chat.ends).answer("1 + 1?", max_new_tokens=1)
    assert asked == ["Q 1 + 1? A"]


def test_an_answer_stops_at_its_end(open_chat):
    head = open_chat.base.model.get_output_embeddings()
    with torch.no_grad():
        head.weight.zero_()  # all tokens are alike, the first is the likeliest
    assert Chat(open_chat.base, open_chat.prompt, (0,)).answer("1?", max_new_tokens=9) == ""


def test_half_a_character_is_held_back():
    pieces, texts = [], {0: "", 1: "a", 2: "a\ufffd", 3: "a\u00e4", 4: "a\u00e4\ufffd"}
    listener = _Listener(lambda ids: texts[len(ids)], pieces.append)
    listener.put(torch.tensor([[7, 7]]))  # the question
    for _ in range(4):
        listener.put(torch.tensor([7]))
    assert pieces == ["a", "\u00e4"]
    listener.end()
    assert "".join(pieces) == texts[4]


def test_sampling_follows_the_seed(trained):
    said = [chat(trained, seed=seed).answer("1?", max_new_tokens=20, temperature=1.5) for seed in (0, 0, 1)]
    assert said[0] == said[1] != said[2]


def test_a_chat_template_remembers(open_chat):
    assert not open_chat.remembers
    talk = Chat(open_chat.base, Prompt("{instruction}", template=TEMPLATE), open_chat.ends)
    assert talk.remembers
    with heard(talk) as asked:
        talk.answer("c", before=[("a", "b")], max_new_tokens=1)
    assert asked == ["<user>a<assistant>b<user>c<reply>"]


def test_a_question_that_leaves_no_room_is_refused(open_chat):
    with pytest.raises(DataError, match="tokens, which leaves no room"):
        open_chat.answer("7" * 300)


def test_a_prompt_that_was_changed_is_refused(run):
    prompt = json.loads((run / "adapter" / "llmad.json").read_text())["prompt"]
    change(run, prompt={**prompt, "question": "other {instruction}"})
    with pytest.raises(ModelError, match="not the one that the adapter was trained with"):
        chat(run)


def test_a_run_without_a_prompt_is_asked_with_its_tasks(run):
    change(run, prompt=None)
    with pytest.warns(LlmadWarning, match="with that of task arithmetic"):
        assert chat(run).prompt == registry().task("arithmetic").prompt


def test_an_adapter_of_no_prompt_and_no_task_is_refused(run):
    about = run / "adapter" / "llmad.json"
    record = json.loads(about.read_text())
    about.write_text(json.dumps({key: value for key, value in record.items() if key not in ("prompt", "task")}))
    with pytest.raises(ModelError, match="neither which prompt nor which task"):
        chat(run)


def test_a_folder_without_an_adapter_is_refused(tmp_path):
    with pytest.raises(ModelError, match="is no adapter directory"):
        chat(tmp_path)


def test_another_base_is_refused(trained):
    with pytest.raises(ModelError, match="trained at"):
        chat(trained, backbone="abacus")
    with pytest.raises(UsageError, match="no backbone"):
        chat(trained, backbone="abcus")
