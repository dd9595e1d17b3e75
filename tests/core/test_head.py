"""Catching what comes to a head, and reading what a model makes of its answer."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from llmad.head import Behind, caught, frozen_head, plain_linear, read, ruler
from tests import zoo

OUTPUTS = 97


@given(
    scale=st.floats(0.01, 100).map(lambda size: round(size, 4)),
    limit=st.none() | st.floats(0.1, 1000).map(lambda size: round(size, 2)),
    width=st.integers(1, OUTPUTS),
    negative=st.booleans(),
)
def test_what_is_behind_the_head_is_read(scale, limit, width, negative):
    scale = -scale if negative else scale
    answer = ruler(OUTPUTS, torch.device("cpu"))
    logits = answer * scale if limit is None else torch.tanh(answer * scale / limit) * limit
    found = read(logits[..., :width], answer)
    assert found is not None
    assert (found.outputs, found.width) == (OUTPUTS, width)
    assert found.scale == pytest.approx(scale, rel=1e-5)
    if limit is None or abs(scale) * 2.0**40 < limit:
        assert found.limit is None
    else:
        assert found.limit == pytest.approx(limit, rel=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        torch.relu,
        torch.square,
        torch.log_softmax,
        lambda logits: logits + 1e-3,
        lambda logits: logits * 0,
        lambda logits: logits / 0,
        lambda logits: logits.clamp(-30, 30),
        lambda logits: 30 * torch.sigmoid(logits / 30),
        lambda logits: logits.bfloat16(),
        lambda logits: logits.flip(-1),
        lambda logits: logits[:, 1:],
        lambda logits: logits[0],
        lambda logits: torch.cat((logits, logits), -1),
        lambda logits: logits * torch.linspace(1, 1.01, OUTPUTS),
        lambda logits: (logits,),
    ],
)
def test_anything_else_is_not(other):
    answer = ruler(OUTPUTS, torch.device("cpu"))
    done = other(answer, -1) if other is torch.log_softmax else other(answer)
    assert read(done, answer) is None


def test_without_an_answer_nothing_is_read():
    assert read(torch.ones(1, 5, 9), None) is None


@given(scale=st.sampled_from([1.0, 0.25]), limit=st.sampled_from([None, 3.0]), width=st.integers(1, 7))
def test_what_was_read_is_what_the_model_does(scale, limit, width):
    logits = torch.randn(4, 7).bfloat16()
    wanted = logits[:, :width].float() * scale
    wanted = wanted if limit is None else limit * torch.tanh(wanted / limit)
    found = Behind(7, width, scale, limit)(logits)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted)


def test_hooks_stay_in_force():
    head = nn.Linear(4, 6)
    head.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    head.register_forward_hook(lambda module, args, out: out * 2)
    states = torch.randn(1, 3, 4)
    with caught(head) as catch:
        out = head(states)
    assert torch.equal(catch.hidden, states + 1)
    assert read(out, catch.answer) == Behind(6, 6, 2.0)
    assert "forward" not in vars(head)


def test_a_forward_of_the_instance_is_put_back():
    head = nn.Linear(4, 6)
    own = head.forward = lambda states: states @ head.weight.T
    with pytest.raises(ZeroDivisionError), caught(head):
        raise ZeroDivisionError
    assert vars(head)["forward"] is own
    assert not plain_linear(head)


@pytest.mark.parametrize("call", [(torch.ones(2, 4),), (torch.ones(1, 2, 4), None), (torch.ones(1, 2, dtype=int),)])
def test_calls_of_another_kind_are_the_heads(call):
    class Head(nn.Module):
        def forward(self, *args):
            return args

    head = Head()
    with caught(head) as catch:
        assert head(*call) == call
    assert catch.hidden is None
    assert catch.calls == 1


def test_a_second_call_is_the_heads():
    head = nn.Linear(4, 6)
    states = torch.randn(1, 3, 4)
    with caught(head) as catch:
        head(states)
        assert torch.equal(head(states), nn.functional.linear(states, head.weight, head.bias))
    assert catch.hidden is None
    assert catch.calls == 2


def test_which_heads_are_caught():
    model = zoo.build("llama")
    assert frozen_head(model) is None  # it is trained
    assert frozen_head(model.requires_grad_(False)) is model.lm_head
    assert plain_linear(model.lm_head)
    assert not plain_linear(model.double().lm_head)
    assert frozen_head(nn.Linear(1, 1)) is None
