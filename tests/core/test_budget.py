"""What a run is said to take, and what is said to fit."""

import pytest

from llmad import budget
from llmad.budget import Budget
from llmad.run import train_adapter
from llmad.setup import set_up


@pytest.fixture
def planned(told, tmp_path):
    def planned(**values):
        recipe = told(output_dir=str(tmp_path / "run"), **values)
        own = set_up(recipe, None)
        return budget.estimate(own.base.model, own.batching, own.schedule, own.encoded.examples)

    return planned


def part(found, name):
    return next(one.bytes for one in found.parts if one.name == name)


def test_the_parts_are_what_there_is(planned, told, tmp_path):
    found, own = planned(), set_up(told(output_dir=str(tmp_path / "other")), None)
    trained = sum(one.nbytes for one in own.base.model.parameters() if one.requires_grad)
    assert (part(found, "adapter"), part(found, "optimizer")) == (trained, 2 * trained)
    frozen = sum(one.nbytes for one in own.base.model.parameters() if not one.requires_grad)
    buffers = sum(one.nbytes for one in own.base.model.buffers())
    assert frozen <= part(found, "weights") <= frozen + buffers
    assert found.lower <= found.predicted <= found.upper
    assert found.way == "measured"
    assert found.cure == ""
    assert all(one.bytes >= 0 and one.what for one in found.parts)


def test_gradients_that_add_up_count(planned):
    found = planned(gradient_accumulation_steps=2)
    assert part(found, "optimizer") == 3 * part(found, "adapter")


def test_computing_again_takes_less(planned):
    assert part(planned(gradient_checkpointing=True), "activations") < part(planned(), "activations") / 2


def test_the_longest_batch_is_looked_for(told, tmp_path):
    own = set_up(told(output_dir=str(tmp_path / "run"), num_train_epochs=2, max_steps=None), None)
    rows = budget.longest(own.batching, own.schedule, own.encoded.examples)
    sizes = [
        sum(len(own.encoded.examples[row].ids) for row in batch) for _, step in own.schedule.walk(0) for batch in step
    ]
    assert sum(len(row.ids) for row in rows) == max(sizes)


def test_a_run_is_told_its_budget_and_trains_the_same_with_blocks_computed_again(told, tmp_path):
    losses = []
    for again in (False, True):
        events = []
        recipe = told(output_dir=str(tmp_path / str(again)), gradient_checkpointing=again, max_steps=2)
        train_adapter(recipe, events.append)
        assert isinstance(events[0].memory, Budget)
        losses.append([event.loss for event in events[1:3]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_sizes_have_the_unit_of_the_largest():
    assert budget.in_words([2**30, 2**29]) == ("GiB", ["1.0", "0.5"])
    assert budget.in_words([2**20]) == ("MiB", ["1.0"])
