"""What is said to fit, and that a plan hides nothing of its own."""

import pytest
import torch

from llmad import fitting, memory, usage
from llmad.fitting import Run, largest, plan
from llmad.setup import set_up
from llmad.usage import NotCountedError


@pytest.fixture
def run(told, tmp_path):
    def run(**values):
        own = set_up(told(output_dir=str(tmp_path / "run"), **values), None)
        return Run(own.base.model, own.batching, own.schedule, own.encoded.examples)

    return run


def room_for(monkeypatch, run, upper):
    """Plant memory for a budget of so many bytes."""
    monkeypatch.setattr(memory, "free", lambda model: 0)
    taken = run.estimate().room
    monkeypatch.setattr(memory, "free", lambda model: upper - taken)


def test_what_does_not_fit_has_a_cure(run, monkeypatch):
    small, large = run(per_device_train_batch_size=2), run(per_device_train_batch_size=8)
    room_for(monkeypatch, large, (small.estimate().upper + large.estimate().upper) // 2)
    found = plan(large)
    assert not found.fits
    sizes, _, again = found.cure.partition(" or ")
    told = dict(pair.split("=") for pair in sizes.split(" and "))
    batch, times = int(told["per_device_train_batch_size"]), int(told["gradient_accumulation_steps"])
    assert (batch in (2, 4), batch * times) == (True, 8)
    assert plan(run(per_device_train_batch_size=batch, gradient_accumulation_steps=times)).fits
    assert again.startswith("gradient_checkpointing=true")


def test_where_nothing_fits_that_is_said(run, monkeypatch):
    monkeypatch.setattr(memory, "free", lambda model: 0)
    assert "not even one row" in plan(run()).cure


def test_an_unknown_room_warns_of_nothing(run, monkeypatch):
    monkeypatch.setattr(memory, "free", lambda model: None)
    assert plan(run()).fits


@pytest.mark.parametrize("error", [RuntimeError("the reason"), KeyError("the reason"), ZeroDivisionError("the reason")])
def test_what_a_model_raises_stops_no_run(run, monkeypatch, error):
    own = run()
    monkeypatch.setattr(type(own.model.get_input_embeddings()), "forward", model_that_raises(error))
    assert plan(own) in ("not known: the reason", "not known: 'the reason'")


def model_that_raises(error):
    """A forward that is no line of llmad."""
    told = {"error": error, "__name__": "some_model"}
    exec("def forward(self, *args, **kwargs):\n    raise error", told)
    return told["forward"]


def test_an_operation_that_fails_in_a_model_is_the_models(run, monkeypatch):
    own = run()
    monkeypatch.setattr(own.model.get_input_embeddings(), "forward", lambda ids: torch.zeros(2).view(3))
    assert plan(own).startswith("not known: shape '[3]' is invalid")


@pytest.mark.parametrize("error", [AttributeError("a slip"), RuntimeError("a slip")])
@pytest.mark.parametrize("place", ["longest", "_parts", "usage"])
def test_what_is_wrong_in_llmad_is_not_hidden(run, monkeypatch, place, error):
    def slip(*_):
        raise error

    own = run()
    monkeypatch.setattr(f"llmad.budget.{place}", slip)
    with pytest.raises(type(error), match="a slip"):
        plan(own)


def test_a_slip_of_llmad_within_the_step_is_not_hidden(run, monkeypatch):
    own = run()
    monkeypatch.setattr(usage.Counting, "_note", lambda self, tensor: tensor.no_such_thing)
    monkeypatch.setattr(usage, "_own", own_here)  # this file stands for one of llmad's
    with pytest.raises(AttributeError, match="no_such_thing"):
        plan(own)


_own = usage._own


def own_here(error):
    *_, last = usage.walk_tb(error.__traceback__)
    return last[0].f_globals["__name__"] == __name__ or _own(error)


def test_errors_of_llmads_own_lines_are_known():
    with pytest.raises(AttributeError) as caught:
        usage._forward(None, None, None)
    assert usage._own(caught.value)
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(2).view(3)
    assert not usage._own(caught.value)


def test_the_largest_cut_divides_a_step(run, monkeypatch):
    own = run(per_device_train_batch_size=3, gradient_accumulation_steps=2)
    uppers = {size: own.estimate(**cut(size, 6)).upper for size in (1, 2, 3, 6)}
    for size in (1, 2, 3, 6):
        room_for(monkeypatch, own, uppers[size])
        assert largest(own, 6)[0] == cut(size, 6)
        if size < 6:
            assert largest(own, size)[0] == cut(size, 6)
    room_for(monkeypatch, own, uppers[1] - 1)
    assert largest(own, 6) is None


def cut(size, rows):
    return {"per_device_train_batch_size": size, "gradient_accumulation_steps": rows // size}


def test_a_step_that_finds_no_memory_does_not_fit(run, monkeypatch):
    def short(model, how, examples):
        raise NotCountedError from torch.OutOfMemoryError

    own = run()
    monkeypatch.setattr("llmad.budget.usage", short)
    assert largest(own, 2) is None
    monkeypatch.setattr("llmad.budget.usage", lambda *_: fail(NotCountedError("else")))
    with pytest.raises(NotCountedError):
        largest(own, 2)


def fail(error):
    raise error


def computes_again(model):
    return any(getattr(part, "gradient_checkpointing", False) for part in model.modules())


def test_a_model_that_computes_again_is_left_as_it_was(run):
    own = run()
    with fitting.again(own.model) as can:
        assert can
        assert computes_again(own.model)
    assert not computes_again(own.model)
