"""Adapters in a stack, side by side, and each for its own rows of a batch."""

import pytest
import torch

import llmad
from llmad.composition import Stage, by_row, stack

METHODS = ["lora[sites=linear]", "series[sites=attn.q+attn.o@before+mlp.down]", "parallel[sites=attn+attn.v]"]


@pytest.fixture
def two(model, perturb):
    """A model with two adapters, `a` and `b`, of different methods, neither active alone by chance."""
    for name, spec, seed in (("a", "lora[sites=attn.q+mlp.up]", 1), ("b", "series[sites=attn.q+attn.o]", 2)):
        llmad.attach(model, spec, name)
        perturb(model, name, seed=seed)
    return model


def alone(model, names, ids):
    """The logits with these adapters active for every row."""
    llmad.activate(model, *names)
    with torch.no_grad():
        return model(ids).logits.clone()


def close(found, wanted):
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_sum_of_low_rank_updates_is_their_stack(model, ids, perturb):
    for name, seed in (("a", 1), ("b", 2)):
        perturb(llmad.attach(model, "lora[sites=linear]", name), name, seed=seed)
    close(alone(model, ["a+b"], ids), alone(model, ["a", "b"], ids))


def test_adapters_side_by_side_all_see_the_base(llama, perturb):
    for name, seed in (("a", 1), ("b", 2)):
        perturb(llmad.attach(llama, "series[sites=attn.o]", name), name, seed=seed)
    place = llama.model.layers[0].self_attn.o_proj
    x = torch.randn(2, 3, place.in_features)
    h, updates = torch.nn.functional.linear(x, place.weight), []
    for name in "ab":
        llmad.activate(llama, name)
        updates.append(place(x) - h)
    llmad.activate(llama, "a+b")
    close(place(x), h + updates[0] + updates[1])
    llmad.activate(llama, "a", "b")
    assert not torch.allclose(place(x), h + updates[0] + updates[1], atol=1e-3)


@pytest.mark.parametrize("spec", METHODS)
def test_fresh_adapters_side_by_side_change_no_bit(model, logits, spec):
    before = logits(model)
    llmad.activate(llmad.attach(llmad.attach(model, spec, "a"), spec, "b"), "a+b")
    assert torch.equal(logits(model), before)


def test_each_row_has_its_own_adapters(two):
    ids = torch.randint(3, 90, (5, 6), generator=torch.Generator().manual_seed(3))
    rows = ["a", None, "b", ["a", "b"], "a+b"]
    wanted = [alone(two, names, ids)[row] for row, names in enumerate((["a"], [], ["b"], ["a", "b"], ["a+b"]))]
    llmad.activate(two, "b")
    with llmad.per_row(two, rows), torch.no_grad():
        found = two(ids).logits
    close(found, torch.stack(wanted))
    close(alone(two, ["b"], ids)[2], wanted[2])


@pytest.mark.parametrize("beams", [1, 3])
def test_each_row_has_its_own_adapters_while_text_is_generated(two, ids, beams):
    def generate():
        return two.generate(ids, max_new_tokens=6, num_beams=beams, do_sample=False, pad_token_id=0)

    wanted = []
    for row, names in enumerate((["a"], ["b"])):
        llmad.activate(two, *names)
        wanted.append(generate()[row])
    with llmad.per_row(two, ["a", "b"]):
        found = generate()
    for got, want in zip(found, wanted, strict=True):
        assert got.tolist()[: len(want)] == want.tolist()


def test_gradients_reach_only_the_adapter_of_the_row(two, ids):
    with llmad.per_row(two, ["a", None]):
        two(ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None for _, parameter in llmad.parameters(two, "a"))
    assert all(parameter.grad is None for _, parameter in llmad.parameters(two, "b"))


def test_the_base_computes_every_place_once(llama, ids, perturb):
    for name, seed in (("a", 1), ("b", 2)):
        perturb(llmad.attach(llama, "lora", name), name, seed=seed)
    calls = []
    llama.model.layers[0].self_attn.q_proj.register_forward_hook(lambda *_: calls.append("host"))
    original = torch.nn.functional.linear
    weight = llama.model.layers[0].self_attn.q_proj.weight

    def counted(x, matrix, bias=None):
        calls.extend(["base"] if matrix is weight else [])
        return original(x, matrix, bias)

    with pytest.MonkeyPatch.context() as patch, llmad.per_row(llama, ["a", "b"]), torch.no_grad():
        patch.setattr(torch.nn.functional, "linear", counted)
        llama(ids)
    assert calls == ["base", "host"]


def test_a_batch_of_another_size_is_refused(two, ids):
    with (
        llmad.per_row(two, ["a", "b", None]),
        pytest.raises(llmad.ModelError, match="given for 3 rows; the batch has 2"),
    ):
        two(ids)


@pytest.mark.parametrize(("rows", "code"), [
    ([], "no-rows"), (["c"], "not-attached"), (["a+a"], "name-twice"), ([["a", "a"]], "name-twice"),
    (["a+"], "not-attached"),
])  # fmt: skip
def test_wrong_rows_change_nothing(two, ids, rows, code):
    before = alone(two, ["a"], ids)
    with pytest.raises(llmad.UsageError) as caught, llmad.per_row(two, rows):
        pass
    assert caught.value.code == code
    with torch.no_grad():
        assert torch.equal(two(ids).logits, before)


def test_what_acts_on_the_whole_model_cannot_stand_beside_another(llama):
    llmad.attach(llmad.attach(llama, "prompt", "a"), "lora", "b")
    with pytest.raises(llmad.UsageError, match="'a' acts on the whole model") as caught:
        llmad.activate(llama, "a+b")
    assert caught.value.code == "not-beside"


def test_the_adapters_come_back_after_an_exception(two, ids):
    before = alone(two, ["b", "a"], ids)
    with pytest.raises(KeyError), llmad.per_row(two, ["a", None]):
        raise KeyError
    with torch.no_grad():
        assert torch.equal(two(ids).logits, before)


def test_rows_with_the_same_adapters_share_a_stage():
    assert by_row(["a", None, ["a"], ("b", "a")]) == [
        Stage(("a",), (0, 2), 4), Stage(("b",), (3,), 4), Stage(("a",), (3,), 4),
    ]  # fmt: skip
    assert stack(["a + b", "c"]) == [Stage(("a", "b")), Stage(("c",))]


def test_a_row_that_stands_several_times_in_a_row_keeps_its_adapters():
    stage = Stage(("a",), (0, 2), 3)
    assert stage.mask(3).tolist() == [True, False, True]
    assert stage.mask(6).tolist() == [True, True, False, False, True, True]
    assert Stage(("a",)).mask(6) is None


def test_an_adapter_beside_another_cannot_be_merged(llama):
    llmad.attach(llmad.attach(llama, "lora", "a"), "lora", "b")
    llmad.activate(llama, "a+b")
    with pytest.raises(llmad.ModelError, match="'b' acts before 'a' or beside it"):
        llmad.merge(llama, "a")
    with (
        llmad.per_row(llama, ["a"]),
        pytest.raises(llmad.ModelError, match="other adapters are active for a while"),
    ):
        llmad.merge(llama, "a")


@pytest.mark.parametrize("specs", [
    ("series[sites=mlp.down]", "series[sites=mlp.down@before]"),
    ("lora[sites=mlp.down+mlp.down@before]", "lora[sites=mlp.down+mlp.down@before]"),
])  # fmt: skip
def test_different_sides_of_a_place_have_no_sum(llama, specs):
    for name, spec in zip("ab", specs, strict=True):
        llmad.attach(llama, spec, name)
    with pytest.raises(llmad.UsageError, match=r"a\+b sit at different sides or parts of model.layers.0.mlp.down_proj"):
        llmad.activate(llama, "a+b")


def test_different_roles_of_a_fused_linear_have_a_sum(tiny, ids, perturb):
    model = tiny("bloom")
    for seed, (name, spec) in enumerate((("a", "lora[sites=attn.q]"), ("b", "lora[sites=attn.v+attn.q]"))):
        perturb(llmad.attach(model, spec, name), name, seed=seed)
    close(alone(model, ["a+b"], ids), alone(model, ["a", "b"], ids))


def test_what_is_attached_within_a_block_stands_alone_afterwards(llama):
    from llmad.attachment import state

    for name in "ab":
        llmad.attach(llama, "lora", name)
    with llmad.disabled(llama):
        llmad.attach(llama, "lora", "c")
        llmad.activate(llama, "a+c")
    assert [stage.names for stage in state(llama).active] == [("a",), ("b",), ("c",)]


def test_both_sides_of_a_place_may_be_one_adapters(llama, ids, perturb):
    for seed, (name, spec) in enumerate((("a", "series[sites=mlp.down+mlp.down@before]"), ("b", "lora"))):
        perturb(llmad.attach(llama, spec, name), name, seed=seed)
    close(alone(llama, ["a+b"], ids), alone(llama, ["a", "b"], ids))
