"""What ends a text, how tokens are chosen, how much room there is."""

import json
import shutil
from types import SimpleNamespace

import pytest

from llmad import attach, disabled, pretrained
from llmad.generation import ends, positions, room, sampling


@pytest.fixture
def base(folder):
    return pretrained.load(folder)


def test_every_end_that_the_model_names_ends_a_text(base, folder, tmp_path):
    assert ends(base) == (2,)
    path = shutil.copytree(folder, tmp_path / "ends")
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 2]}))
    assert ends(pretrained.load(str(path))) == (2, 5)


def test_the_likeliest_token_or_one_of_all():
    assert sampling(0.0) == {"do_sample": False, "num_beams": 1}
    assert {**sampling(0.7)}.items() >= {"do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 1.0}.items()


def test_positions_bound_the_room(base):
    assert [room(base.model, length, 20) for length in (1, 236, 250, 255, 256, 999)] == [20, 20, 6, 1, 0, 0]


def test_a_model_without_positions_has_room():
    model = SimpleNamespace(config=SimpleNamespace())
    assert room(model, 10**6, 20) == 20


def test_tokens_before_the_text_take_positions_while_their_adapter_acts(base):
    attach(base.model, "prompt[num_virtual_tokens=20]")
    assert [room(base.model, length, 20) for length in (216, 230, 236)] == [20, 6, 0]
    assert positions(base.model, 512) == 236
    with disabled(base.model):
        assert positions(base.model, 512) == 256


def test_more_tokens_before_the_text_than_positions_leave_none(base):
    attach(base.model, "prompt[num_virtual_tokens=300]")
    assert positions(base.model, 512) == 0


@pytest.mark.parametrize("key", ["max_position_embeddings", "max_seq_len"])
def test_configs_say_in_two_ways_how_long_a_text_may_be(key):
    assert positions(SimpleNamespace(config=SimpleNamespace(**{key: 64})), 512) == 64
