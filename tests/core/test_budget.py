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
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    monkeypatch.setattr(budget.platform, "libc_ver", lambda: ("glibc", "2.36"))


def test_what_the_c_library_keeps_grows_with_what_comes_and_goes(on_glibc):
    model, mib = torch.nn.Linear(2, 2), 2**20
    kept, working = Usage(100 * mib, 0, 100 * mib, "measured"), Usage(0, 0, 100 * mib, "measured")
    assert [budget._slack(model, step) // mib for step in (kept, working)] == [83, 276]
    assert budget._slack(model, Usage(0, 0, 0, "measured")) == 2**23
    large = Usage(10**10, 0, 10**10, "rehearsed")
    assert budget._slack(model, large) == 2 * 10**9 + 2**28


def test_what_it_gives_back_is_not_counted(on_glibc, monkeypatch):
    step = Usage(0, 0, 100 * 2**20, "measured")
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    assert budget._slack(torch.nn.Linear(2, 2), step) == 28 * 2**20


@pytest.mark.parametrize(("way", "library"), [("extrapolated", "glibc"), ("measured", "")])
def test_what_is_not_known_has_a_wide_bound(on_glibc, monkeypatch, way, library):
    monkeypatch.setattr(budget.platform, "libc_ver", lambda: (library, ""))
    assert budget._slack(torch.nn.Linear(2, 2), Usage(0, 0, 0, way)) == 2**28


def test_weights_that_are_pages_of_a_file_are_no_room(planned, monkeypatch):
    monkeypatch.setattr(budget.memory, "free", lambda model: 1000)
    monkeypatch.setattr(budget.memory, "mapped", lambda model: 300)
    found = planned()
    assert found.room == 700 + part(found, "weights") + part(found, "adapter")
