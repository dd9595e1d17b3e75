"""Which adapters act: for good or within a block, in which order, and what is refused without a change."""

import copy

import pytest
import torch

import llmad
from llmad import AdapterModule, AdapterSpec, Sites, UsageError
from llmad.activation import only
from llmad.attachment import state


class Changed(AdapterModule):
    def __init__(self, add, times):
        super().__init__()
        self.add, self.times = add, times

    def forward(self, base, x):
        return (base(x) + self.add) * self.times


class Change(AdapterSpec):
    """Adds, then multiplies: two of them do not commute."""

    name = "change"
    sites: Sites = Sites("head")
    add: float = 0.0
    times: float = 1.0

    def build(self, site):
        return Changed(self.add, self.times)


ADD = Change(add=1.0)
DOUBLE = Change(times=2.0)


def test_activate_chooses_the_adapters_and_their_order(llama, logits):
    plain = logits(llama)
    llmad.attach(llama, ADD, "add")
    llmad.attach(llama, DOUBLE, "twice")
    assert torch.equal(logits(llmad.activate(llama, "twice", "add")), plain * 2 + 1)
    assert torch.equal(logits(llmad.activate(llama, "add")), plain + 1)
    assert torch.equal(logits(llmad.activate(llama)), plain)
    assert torch.equal(logits(llmad.activate(llama, "add", "twice")), (plain + 1) * 2)


@pytest.mark.parametrize(("names", "code"), [(["ad"], "not-attached"), (["add", "add"], "name-twice")])
def test_a_wrong_choice_changes_nothing(llama, names, code):
    llmad.attach(llama, ADD, "add")
    with pytest.raises(UsageError) as caught:
        llmad.activate(llama, *names)
    assert caught.value.code == code
    assert [stage.names for stage in state(llama).active] == [("add",)]


def test_disabled_gives_the_base_and_the_adapter_back(llama, logits):
    plain = logits(llama)
    llmad.attach(llama, ADD)
    with llmad.disabled(llama) as same:
        assert same is llama
        assert torch.equal(logits(llama), plain)
        with llmad.disabled(llama):
            assert torch.equal(logits(llama), plain)
        assert torch.equal(logits(llama), plain)
    assert torch.equal(logits(llama), plain + 1)


def test_disabled_gives_the_adapter_back_after_an_exception(llama, logits):
    plain = logits(llama)
    llmad.attach(llama, ADD)
    with pytest.raises(KeyError), llmad.disabled(llama):
        raise KeyError
    assert torch.equal(logits(llama), plain + 1)


def test_disabled_leaves_a_bare_model_alone(llama, logits):
    plain = logits(llama)
    with llmad.disabled(llama):
        assert torch.equal(logits(llama), plain)


def test_what_is_detached_while_disabled_stays_out(llama, logits):
    plain = logits(llama)
    llmad.attach(llama, DOUBLE, "twice")
    llmad.attach(llama, ADD, "add")
    with llmad.disabled(llama):
        llmad.detach(llama, "twice")
    assert torch.equal(logits(llama), plain + 1)
    llmad.attach(llama, DOUBLE, "twice")
    assert torch.equal(logits(llama), (plain + 1) * 2)


def test_what_is_attached_while_disabled_is_active_afterwards(llama, logits):
    plain = logits(llama)
    llmad.attach(llama, ADD, "add")
    with llmad.disabled(llama):
        llmad.attach(llama, DOUBLE, "twice")
    assert torch.equal(logits(llama), (plain + 1) * 2)


def test_a_copy_does_not_share_what_is_active(llama, logits):
    plain = logits(llama)
    llmad.attach(llama, ADD)
    twin = copy.deepcopy(llama)
    llmad.activate(twin)
    assert torch.equal(logits(twin), plain)
    assert torch.equal(logits(llama), plain + 1)


def test_a_block_has_its_own_adapters_in_its_own_order(llama, logits):
    plain = logits(llama)
    llmad.attach(llama, ADD, "add")
    llmad.attach(llama, DOUBLE, "twice")
    with only(llama, "twice", "add"):
        assert torch.equal(logits(llama), plain * 2 + 1)
        with only(llama, "add"):
            assert torch.equal(logits(llama), plain + 1)
        assert torch.equal(logits(llama), plain * 2 + 1)
    assert torch.equal(logits(llama), (plain + 1) * 2)
