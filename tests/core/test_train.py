"""The training loop: its loss, its steps, its schedule."""

import copy
import math
import traceback

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import llmad
from llmad import train
from llmad.batching import Batching
from llmad.data import Example
from llmad.errors import DivergedError, UsageError
from llmad.recipe import Recipe
from llmad.schedule import Schedule
from llmad.train import Trainee, accelerator, fit, loss_scaler, optimizer, token_losses


def told(**values):
    what = {"backbone": "b", "adapter": "lora", "task": "t", "warmup_ratio": 0.0, "learning_rate": 1e-2}
    return Recipe(**{**what, **values})


def example(size, learnt, seed):
    ids = torch.randint(3, 97, (size,), generator=torch.Generator().manual_seed(seed)).tolist()
    return Example(tuple(ids), tuple(place >= size - learnt for place in range(size)))


@pytest.fixture
def examples():
    return [example(5 + number % 4, 2 + number % 3, number) for number in range(16)]


def run(model, recipe, examples, start=0, adam=None, scaler=None):
    schedule = Schedule(recipe, tuple(len(one.ids) for one in examples), recipe.learning_rate)
    adam = adam or optimizer(dict(llmad.parameters(model)), recipe)
    scaler = scaler or loss_scaler(model)
    trainee = Trainee(schedule, examples, adam, scaler, start)
    return [step.done() for (step,) in fit(model, [trainee], Batching(0), accelerator())]


def weights(model):
    return {name: value.detach().clone() for name, value in llmad.parameters(model)}


def test_four_times_four_rows_are_sixteen_rows_at_once(llama, examples):
    llmad.attach(llama, "lora")
    twin = copy.deepcopy(llama)
    at_once = told(per_device_train_batch_size=16, max_steps=3)
    in_parts = told(per_device_train_batch_size=4, gradient_accumulation_steps=4, max_steps=3)
    first, second = run(llama, at_once, examples), run(twin, in_parts, examples)
    assert [step.trained_tokens for step in first] == [step.trained_tokens for step in second]
    assert all(math.isclose(one.loss, two.loss, abs_tol=1e-6) for one, two in zip(first, second, strict=True))
    there = weights(twin)
    assert all(torch.allclose(value, there[name], atol=1e-6, rtol=0) for name, value in weights(llama).items())


def test_the_loss_falls(llama, examples):
    llmad.attach(llama, "lora")
    steps = run(llama, told(max_steps=20, lr_scheduler_type="constant"), examples)
    assert steps[-1].loss < steps[0].loss


def test_a_step_says_what_it_did(llama, examples):
    llmad.attach(llama, "lora")
    (first, second) = run(llama, told(per_device_train_batch_size=8, num_train_epochs=1), examples)
    assert (first.step, second.step, first.steps) == (1, 2, 2)
    assert (first.epoch, second.epoch) == (0.5, 1.0)
    assert first.tokens + second.tokens == sum(len(one.ids) for one in examples)
    assert first.trained_tokens + second.trained_tokens == sum(sum(one.labelled) for one in examples)
    assert (first.learning_rate, second.learning_rate) == (1e-2, 5e-3)
    assert first.grad_norm > 0
    assert first.describe()["loss"] == first.loss


def test_a_step_depends_on_the_seed_and_its_number_alone(llama, examples):
    llmad.attach(llama, "lora[dropout=0.5]")
    twin = copy.deepcopy(llama)
    torch.manual_seed(1)
    run(llama, told(max_steps=2), examples)
    torch.manual_seed(2)
    run(twin, told(max_steps=2), examples)
    assert all(torch.equal(value, weights(twin)[name]) for name, value in weights(llama).items())


def test_gradients_are_clipped_to_the_norm(llama, examples):
    llmad.attach(llama, "lora")
    recipe, norms = told(max_steps=1, max_grad_norm=1e-3), []
    adam = optimizer(dict(llmad.parameters(llama)), recipe)
    adam.register_step_pre_hook(lambda *_: norms.append(train._clip(adam.param_groups[0]["params"], 0)))
    (step,) = run(llama, recipe, examples, adam=adam)
    assert step.grad_norm > 1e-3
    assert math.isclose(float(norms[0]), 1e-3, rel_tol=1e-2)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(llama, examples, monkeypatch):
    llmad.attach(llama, "lora")
    before = weights(llama)
    real = token_losses
    monkeypatch.setattr(train, "token_losses", lambda *words: real(*words) * math.inf)
    with pytest.raises(DivergedError, match=r"step 1, rows \[.*: loss inf, gradient norm nan") as error:
        run(llama, told(max_steps=1), examples)
    assert error.value.hint == "lower learning_rate"
    assert all(torch.equal(value, before[name]) for name, value in weights(llama).items())


@given(
    rows=st.integers(1, 60),
    size=st.integers(1, 9),
    parts=st.integers(1, 5),
    epochs=st.floats(0.1, 3),
    start=st.integers(0, 9),
)
def test_a_walk_goes_on_where_another_stopped(rows, size, parts, epochs, start):
    recipe = told(per_device_train_batch_size=size, gradient_accumulation_steps=parts, num_train_epochs=epochs)
    schedule = Schedule(recipe, tuple(range(1, rows + 1)), 1.0)
    whole = list(schedule.walk(0))
    assert [step for step, _ in whole] == list(range(1, schedule.steps + 1))
    assert all(0 < len(parts_of) <= parts for _, parts_of in whole)
    assert list(schedule.walk(start)) == whole[start:]


def test_each_row_comes_once_an_epoch():
    schedule = Schedule(told(per_device_train_batch_size=3, gradient_accumulation_steps=2), tuple([1] * 20), 1.0)
    assert schedule.steps == schedule.steps_per_epoch == 4
    assert sorted(row for _, parts in schedule.walk(0) for rows in parts for row in rows) == list(range(20))


def test_max_steps_overrides_the_epochs():
    assert Schedule(told(max_steps=7, num_train_epochs=100), (1,) * 50, 1.0).steps == 7


def rates(kind, warmup=0.2):
    schedule = Schedule(told(max_steps=10, lr_scheduler_type=kind, warmup_ratio=warmup), (1,), 1.0)
    return [schedule.learning_rate(step) for step in range(1, 11)]


def test_the_learning_rate_rises_then_falls_in_a_line():
    assert rates("linear") == pytest.approx([0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


def test_the_learning_rate_rises_then_falls_in_a_cosine():
    wanted = [(1 + math.cos(math.pi * place / 8)) / 2 for place in range(8)]
    assert rates("cosine") == pytest.approx([0.5, 1, *wanted])


def test_the_learning_rate_rises_then_stays():
    assert rates("constant") == [0.5, *[1] * 9]


def test_without_warm_up_the_first_step_has_the_peak():
    assert rates("linear", 0.0)[0] == 1


@given(st.integers(1, 500), st.sampled_from(["linear", "cosine", "constant"]), st.floats(0, 0.99))
def test_every_step_has_a_rate_above_zero_and_none_above_the_peak(steps, kind, warmup):
    schedule = Schedule(told(max_steps=steps, lr_scheduler_type=kind, warmup_ratio=warmup), (1,), 3e-3)
    assert all(0 < schedule.learning_rate(step) <= 3e-3 * (1 + 1e-9) for step in range(1, steps + 1))


def test_the_optimizer_has_the_recipes_weight_decay(llama):
    llmad.attach(llama, "lora")
    adam = optimizer(dict(llmad.parameters(llama)), told(weight_decay=0.1))
    assert [group["weight_decay"] for group in adam.param_groups] == [0.1]


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(UsageError, match="2 processes were launched"):
        accelerator()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("spec", ["lora", "series"])
def test_a_base_of_every_dtype_trains_with_weights_in_float32(model, examples, spec, dtype):
    llmad.attach(model.to(dtype), spec)
    steps = run(model, told(max_steps=20, lr_scheduler_type="constant"), examples)
    assert steps[-1].loss < steps[0].loss
    assert {value.dtype for value in weights(model).values()} == {torch.float32}
    assert {value.dtype for name, value in model.named_parameters() if ".adapters." not in name} == {dtype}


def test_the_loss_is_scaled_for_a_float16_base_alone(llama):
    assert not loss_scaler(llama).is_enabled()
    assert not loss_scaler(llama.to(torch.bfloat16)).is_enabled()
    assert loss_scaler(llama.to(torch.float16)).get_scale() >= 1024


def test_an_overflow_of_a_float16_base_skips_the_step_and_lowers_the_scale(llama, examples):
    llmad.attach(llama.to(torch.float16), "lora")
    before = weights(llama)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    (step,) = run(llama, told(max_steps=1), examples, scaler=scaler)
    assert step.grad_norm is None
    assert scaler.get_scale() == 2.0**39
    assert all(torch.equal(value, before[name]) for name, value in weights(llama).items())
    steps = run(llama, told(max_steps=30), examples, scaler=scaler)
    assert steps[-1].grad_norm > 0


def test_a_scale_that_is_used_up_is_a_divergence(llama, examples, monkeypatch):
    llmad.attach(llama.to(torch.float16), "lora")
    monkeypatch.setattr(train, "_clip", lambda *_: torch.tensor(math.inf))
    with pytest.raises(DivergedError):
        run(llama, told(max_steps=3), examples, scaler=torch.amp.GradScaler("cpu", init_scale=1.0))


class Asked(TorchDispatchMode):
    """What the host asks of floating tensors: to wait for all that their device was told to do."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Note it, and go on."""
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_floating_point():
            self.found.append(traceback.format_stack(limit=8))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("adapter", ["lora[dropout=0.1]", "series", "prompt[num_virtual_tokens=2]"])
def test_no_step_asks_its_device_for_a_number(llama, examples, adapter):
    llmad.attach(llama, adapter)
    run(llama, told(max_steps=1), examples)  # what is looked at once
    with Asked() as asked:
        steps = run(llama, told(max_steps=3), examples)
    assert not asked.found, "".join(asked.found[0])
    assert all(math.isfinite(step.loss) for step in steps)


def test_a_loss_that_nobody_reads_is_read_a_step_later(llama, examples, monkeypatch):
    llmad.attach(llama, "lora")
    real = train.token_losses
    monkeypatch.setattr(train, "token_losses", lambda *words: real(*words) * torch.nan)
    recipe = told(max_steps=3)
    schedule = Schedule(recipe, tuple(len(one.ids) for one in examples), 1e-2)
    trainee = Trainee(schedule, examples, optimizer(dict(llmad.parameters(llama)), recipe), loss_scaler(llama))
    steps = fit(llama, [trainee], Batching(0), accelerator())
    next(steps)
    with pytest.raises(DivergedError, match=r"^step 1, "):
        next(steps)
