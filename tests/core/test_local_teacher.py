"""A model on this machine as the teacher."""

import json
import shutil

import pytest

from llmad.errors import ModelError, UsageError
from llmad.local_teacher import local_teacher
from llmad.teacher import Reply

DIALOGUES = [("Q: 3 + 4?\nA:",), ("Q: Tom has 3 pears and gets 4 more. How many?\nA:",), ("Q: ?", "so", "Therefore")]
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<reply>{% endif %}"
)


@pytest.fixture
def teacher(folder):
    return local_teacher(folder, 2, 0.0, 0)


@pytest.fixture
def chatty(folder, tmp_path):
    """The same model with a chat template."""
    path = shutil.copytree(folder, tmp_path / "chatty")
    config = path / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": TEMPLATE}))
    return local_teacher(str(path), 2, 0.0, 0)


def asked(teacher, dialogue):
    return teacher.base.tokenizer.decode(teacher._ids(dialogue))


def test_groups_are_batches_longest_first(teacher):
    assert teacher.groups(DIALOGUES) == [[1, 2], [0]]
    assert teacher.groups([]) == []


def test_a_text_is_continued(teacher):
    assert asked(teacher, DIALOGUES[0]) == DIALOGUES[0][0]
    assert asked(teacher, ("Q: ?", " so\n", "Therefore")) == "Q: ? so\nTherefore"


def test_a_chat_template_is_used(chatty):
    assert asked(chatty, ("Q: ?",)) == "<user>Q: ?<reply>"
    assert asked(chatty, ("Q: ?", "so", "Then")) == "<user>Q: ?<assistant>so<user>Then<reply>"


def test_a_template_that_cannot_be_rendered_is_told(chatty):
    chatty.base.tokenizer.chat_template = "{{ raise_exception('roles\nmust alternate') }}"
    with pytest.raises(ModelError, match="the chat template: roles must alternate"):
        chatty.reply([("?",)], 3)


def test_a_batch_says_the_same_again_and_what_rows_say_alone(teacher):
    replies = teacher.reply(DIALOGUES, 20)
    assert replies == teacher.reply(DIALOGUES, 20)
    assert replies == [teacher.reply([dialogue], 20)[0] for dialogue in DIALOGUES]


def test_a_reply_ends_at_its_end_or_is_cut_off(teacher):
    end, seven = teacher.ends[0], teacher.base.tokenizer("7")["input_ids"]
    assert teacher._reply([*seven, end, *seven]) == Reply("7", True)
    assert teacher._reply(seven) == Reply("7", False)


def test_the_next_question_ends_a_text_and_not_a_chat(teacher, chatty):
    ids = teacher.base.tokenizer("7\nQ: 8?")["input_ids"]
    assert teacher._reply(ids) == Reply("7", True)
    assert chatty._reply(ids) == Reply("7\nQ: 8?", False)


def test_sampling_depends_on_the_seed_and_the_batch_alone(folder):
    one, other = (local_teacher(folder, 2, 1.0, seed) for seed in (0, 1))
    first = one.reply(DIALOGUES, 20)
    one.reply(DIALOGUES[:1], 20)
    assert one.reply(DIALOGUES, 20) == first
    assert other.reply(DIALOGUES, 20) != first


def test_its_identity_is_its_weights_and_options(teacher, folder):
    assert teacher.identity() == local_teacher(folder, 2, 0.0, 0).identity()
    assert teacher.identity()["device"] == "cpu"
    assert teacher.identity() != local_teacher(folder, 3, 0.0, 0).identity()
    teacher.base.model.get_input_embeddings().weight.data.add_(1)
    assert teacher.identity()["weights"] != local_teacher(folder, 2, 0.0, 0).identity()["weights"]


def test_the_models_positions_bound_the_reply(teacher):
    (reply,) = teacher.reply([("7" * 250,)], 20)
    assert not reply.finished
    assert teacher.reply([("7" * 300,), *DIALOGUES], 20) == [Reply("", False), *teacher.reply(DIALOGUES, 20)]
    assert teacher.reply([("7" * 300,)], 20) == [Reply("", False)]


def test_a_teacher_may_be_quantised(folder):
    teacher = local_teacher(folder, 2, 0.0, 0, quantize="nf4")
    assert teacher.identity()["quantized"].startswith("nf4")
    assert len(teacher.reply(DIALOGUES, 4)) == 3


def test_a_broken_folder_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError):
        local_teacher(str(tmp_path), 2, 0.0, 0)


def test_a_shape_without_weights_is_refused():
    with pytest.raises(UsageError, match="by its shape only"):
        local_teacher("llama-7b", 2, 0.0, 0)
