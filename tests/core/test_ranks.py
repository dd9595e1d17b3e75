"""Sharing, summing and agreeing among processes; alone, nothing of it does anything."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from llmad import ranks
from llmad.errors import DivergedError, RankError
from llmad.ranks import ALONE, Ranks
from llmad.recipe import Recipe
from llmad.schedule import Schedule
from llmad.stopping import Stopped, stop
from tests.launched import launcher


@pytest.fixture(scope="module")
def launch():
    with launcher() as asked:
        yield asked


def both(launch, code, count=2, **more):
    """Run code in several processes that have joined, and return how they ended."""
    joined = f"import torch\nfrom torch import nn\nfrom llmad.launch import join\nranks = join()\n{code}"
    return launch(count=count, code=joined, **more)


@given(count=st.integers(1, 5), batches=st.lists(st.integers(), max_size=12))
def test_every_batch_is_one_process_s(count, batches):
    shares = [Ranks(number, count).share(batches) for number in range(count)]
    assert sorted(batch for share in shares for batch in share) == sorted(batches)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert Ranks(0, 1).share(batches) == batches


@given(rows=st.integers(1, 60), size=st.integers(1, 4), parts=st.integers(1, 3), count=st.integers(1, 4))
def test_an_epoch_of_several_has_every_row_once_in_the_order_of_one(rows, size, parts, count):
    keys = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts, "num_train_epochs": 1}
    recipe = Recipe(backbone="b", adapter="lora", task="t", **keys)
    schedule = Schedule(recipe, (1,) * rows, 1.0, count)
    steps = [own for _, own in schedule.walk(0)]
    assert sorted(row for step in steps for batch in step for row in batch) == list(range(rows))
    assert len(steps) == schedule.steps_per_epoch == schedule.steps
    assert sum(len(step) < parts * count for step in steps) <= 1
    more = recipe.model_copy(update={"gradient_accumulation_steps": parts * count})
    alone = Schedule(more, (1,) * rows, 1.0)
    assert steps == [own for _, own in alone.walk(0)]
    assert [schedule.learning_rate(step) for step in (1, 2)] == [alone.learning_rate(step) for step in (1, 2)]


def test_the_main_process_draws_what_one_alone_draws_and_the_others_something_else():
    seeds = {Ranks(number, 4).seed(seed) for number in range(4) for seed in range(100)}
    assert len(seeds) == 400
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert Ranks(0, 4).seed(17) == ALONE.seed(17) == 17
    assert Ranks(3, 4).seed(17) == Ranks(3, 8).seed(17)


def test_alone_everything_is_left_as_it_is():
    weight, loss = nn.Parameter(torch.ones(2)), torch.tensor(0.5)
    assert ALONE.sum(loss, [weight]) is loss
    assert weight.grad is None
    assert (ALONE.agree(15), ALONE.from_main(lambda: "made"), ALONE.main) == (15, "made", True)
    ALONE.check_same([weight])
    ALONE.part()
    with pytest.raises(Stopped), ALONE.together():
        raise Stopped(15)


SUM = """
a, b, c, d = (nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (4,), (1,), ()))
a.grad = torch.full((2, 3), 1.0 + rank)      # everywhere
b.grad = torch.arange(4.0) if rank else None  # in one
d.grad = torch.tensor(0.5)
loss = ranks.sum(torch.tensor(0.25) if rank else 0.0, [a, b, c, d])  # one without a batch has no tensor
assert float(loss) == 0.25, loss
assert torch.equal(a.grad, torch.full((2, 3), 3.0)) and torch.equal(b.grad, torch.arange(4.0))
assert c.grad is None                         # in none
assert d.grad.shape == () and float(d.grad) == 1
assert ranks.agree(15 * rank) == 15 and ranks.agree(0) == 0
assert ranks.from_main(lambda: f"of {rank}") == "of 0"
ranks.check_same([a, torch.tensor(float("nan"))])
"""


def test_losses_and_gradients_are_summed(launch):
    ended = both(launch, SUM)
    assert [one.code for one in ended] == [0, 0], ended


def test_three_are_summed_to_the_same_bits(launch):
    code = """
torch.manual_seed(rank)
weights = [nn.Parameter(torch.zeros(1001)) for _ in range(3)]
for weight in weights: weight.grad = torch.randn(1001)
ranks.sum(1.0, weights)
ranks.check_same([weight.grad for weight in weights])
"""
    assert [one.code for one in both(launch, code, count=3)] == [0, 0, 0]


def test_half_precision_is_summed_in_full(launch):
    code = """
weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
weight.grad = torch.tensor([1.0 if rank else 2.0 ** -7], dtype=torch.bfloat16)
ranks.sum(0.0, [weight])
assert weight.grad.dtype == torch.bfloat16 and float(weight.grad) == 1 + 2.0 ** -7
"""
    assert [one.code for one in both(launch, code)] == [0, 0]


def test_another_tensor_in_one_is_refused_by_all(launch):
    code = """
from llmad.errors import RankError
try: ranks.check_same([torch.tensor([1.0 + rank * 2 ** -23])])
except RankError as error: assert error.code == "ranks-differ" and "process 1 is not that of process 0" in str(error)
else: raise SystemExit
"""
    assert [one.code for one in both(launch, code)] == [0, 0]


@pytest.mark.parametrize(
    "wait", ["sum(0.0, [nn.Parameter(torch.ones(2))])", "agree(0)", "from_main(list)", "check_same([])"]
)
def test_nobody_waits_for_one_that_is_gone(launch, wait):
    code = f"""
import os
from llmad.errors import RankError
if rank == 0: os._exit(3)
try: ranks.{wait}
except RankError as error: assert (error.code, error.exit_code) == ("rank-lost", 9)
else: raise SystemExit
"""
    gone, other = both(launch, code)
    assert (gone.code, other.code) == (3, 0), other.err
    assert other.seconds - gone.seconds < 5


def test_who_waits_for_one_that_never_comes_can_be_ended(launch):
    ended = launch(
        count=2, agent=True, code="import os\nfrom llmad.launch import join\nos._exit(3) if rank else join()"
    )
    assert [one.code for one in ended] == [-15, 3]
    assert ended[0].seconds < 10


def test_who_is_done_lets_the_others_come_to_the_end(launch):
    code = """
import time
from torch import distributed
with ranks.together():
    began = time.monotonic()
    if rank == 2: time.sleep(0.5)
    ranks.part()
    assert rank == 2 or time.monotonic() - began > 0.4
    assert not distributed.is_initialized()
"""
    assert [one.code for one in both(launch, code, count=3)] == [0, 0, 0]


def test_an_error_that_all_have_is_told_by_one(launch):
    code = """
from llmad.errors import DivergedError
try:
    with ranks.together(): raise DivergedError("diverged", "step 3")
except DivergedError: print("told")
except SystemExit as end: assert end.code == 5
"""
    ended = both(launch, code)
    assert [one.code for one in ended] == [0, 0], ended
    assert sorted(one.out for one in ended) == ["", "told\n"]


def test_errors_of_their_own_are_told_by_each_and_the_loss_of_one_is_not(launch):
    code = """
from llmad.errors import DataError, RankError
try:
    with ranks.together():
        if rank == 0: raise DataError("no-data", "not on this machine")
        ranks.agree(0)
except DataError: print("told")
except SystemExit as end: assert (rank, end.code) == (1, 9) and "no-data: not on this machine" in ranks.failure()
"""
    main, other = both(launch, code)
    assert (main.code, other.code, main.out, other.out) == (0, 0, "told\n", ""), other.err


def test_a_launcher_s_signal_does_not_hide_the_error_before_it():
    def lost():
        try:
            raise RankError("rank-lost", "gone")
        finally:
            stop(15)

    with pytest.raises(RankError, match="gone"), ALONE.together():
        lost()


def test_tensors_are_the_same_by_their_bits():
    assert ranks._sum([torch.tensor([0.0])]) != ranks._sum([torch.tensor([-0.0])])
    assert ranks._sum([torch.ones(2, 3).T]) == ranks._sum([torch.ones(3, 2)])
    assert ranks._sum([torch.ones(2, dtype=torch.bfloat16)]) == ranks._sum([torch.ones(2, dtype=torch.bfloat16)])


def test_the_exit_code_is_the_error_s():
    assert ranks._exit_code(Stopped(15)) == 143
    assert ranks._exit_code(DivergedError("diverged", "")) == 5
    assert ranks._exit_code(ValueError()) == 1
