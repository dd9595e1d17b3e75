"""What a run is said to take, and what is said to fit."""

import pytest
import torch

from llmad import budget
from llmad.budget import Budget
from llmad.run import train_adapter
from llmad.setup import set_up
from llmad.usage import Usage


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


@pytest.fixture
def on_glibc(monkeypatch):
    monkeypatch.setattr(budget.platform, "libc_ver", lambda: ("glibc", "2.36"))


MIB = 2**20


def slack(step, model=None):
    return budget._slack(model or torch.nn.Linear(2, 2), step) // MIB


def counted(kept, working, way="measured", small=True):
    sizes = (kept * MIB, (kept + working) * MIB)
    return Usage(sizes[0], 0, sizes[1], way, *(sizes if small else (0, 0)))


def test_what_the_c_library_keeps_grows_with_what_comes_and_goes(on_glibc):
    assert [slack(counted(100, 0)), slack(counted(0, 100))] == [75 + 5 + 8, 350 + 5 + 8]
    assert slack(counted(0, 0)) == 8
    assert slack(counted(0, 1000)) == 3500 + 50 + 8  # 256 MiB were not enough where blocks are computed again


def test_large_blocks_are_given_back(on_glibc):
    assert slack(counted(0, 100, small=False)) == 5 + 8


@pytest.mark.parametrize(("step", "predicted", "weights", "taken"), [
    ((1, 21), 23, 96, 224),  # one block of width 2048 in int8 and bfloat16
    ((22, 11), 35, 288, 188),  # six of width 1024 in int8 and float32
    ((32, 3), 38, 300, 155),  # 24 of width 512 in nf4 and float32
])  # fmt: skip
def test_weights_that_come_and_go_leave_more_behind(on_glibc, monkeypatch, step, predicted, weights, taken):
    """MiB that were above the bound where quantised weights were taken for other blocks."""
    assert predicted + slack(counted(*step)) < taken
    monkeypatch.setattr(budget, "_dequantised", lambda model: weights * MIB)
    assert taken < predicted + slack(counted(*step)) < 2 * taken


def test_quantised_weights_are_those_in_small_blocks(monkeypatch):
    class Eight:
        @staticmethod
        def shape(module):
            return module.weight.shape

    model = torch.nn.Sequential(torch.nn.Linear(100, 200), torch.nn.Linear(200, 300), torch.nn.Linear(7, 7))
    monkeypatch.setattr(budget, "owners", lambda model: {"0": Eight, "1": Eight})
    assert budget._dequantised(model) == 4 * (100 * 200 + 200 * 300)
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "100000")
    assert budget._dequantised(model) == 4 * 100 * 200


def test_what_was_extrapolated_has_a_wider_bound(on_glibc):
    assert slack(counted(100, 0, "extrapolated")) == 75 + 20 + 8


def test_another_c_library_is_not_known(on_glibc, monkeypatch):
    monkeypatch.setattr(budget.platform, "libc_ver", lambda: ("", ""))
    assert slack(counted(0, 0)) == 256


def test_a_large_adapter_is_saved_in_more_memory_than_a_short_step_takes(planned):
    found = planned(adapter="lora[r=64,sites=linear]", per_device_train_batch_size=1)
    between = sum(part(found, name) for name in ("activations", "head", "working"))
    assert between == 5 * part(found, "adapter")


def test_weights_that_are_pages_of_a_file_are_no_room(planned, monkeypatch):
    monkeypatch.setattr(budget.memory, "free", lambda model: 1000)
    monkeypatch.setattr(budget.memory, "mapped", lambda model: 300)
    found = planned()
    assert found.room == 700 + part(found, "weights") + part(found, "adapter")
