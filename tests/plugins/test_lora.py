"""LoRA against its equation and against PEFT, in both directions."""

import json

import peft
import pytest
import torch
from torch.utils.checkpoint import checkpoint

import llmad
from llmad import ModelError

# PEFT asks transformers for a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

PLACEMENTS = [
    "lora[r=4,alpha=6]", "lora[r=4,sites=linear]", "lora[r=2,sites=attn.q+mlp.up,layers=1:]", "lora[r=4,rslora=true]",
    "lora[r=4,rslora=true,sites=linear]", "lora[r=4,sites=attn.q+mlp.up+mlp.down,rank_pattern={mlp.*: 2, mlp.up: 6}]",
]  # fmt: skip
TARGETS = {
    "llama": ["q_proj", "v_proj", "down_proj"],
    "bloom": ["query_key_value", "dense_h_to_4h"],
    "opt": ["q_proj", "fc1"],
    "opt-350m": ["q_proj", "fc1", "project_in"],
    "gptj": ["q_proj", "fc_in"],
}


def test_the_update_is_the_equation(llama, perturb):
    llmad.attach(llama.double(), "lora[r=4,alpha=6,sites=attn.q,layers=0]")
    perturb(llama)
    linear = llama.model.layers[0].self_attn.q_proj
    (lora,) = linear.adapters["default"].values()
    a, b, x = lora.down.weight.double(), lora.up.weight.double(), torch.randn(2, 5, 32, dtype=torch.float64)
    torch.testing.assert_close(linear(x), x @ linear.weight.T + 6 / 4 * x @ a.T @ b.T, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(lora.delta().double(), 6 / 4 * b @ a, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(("init", "std"), [("zero", (3 * 256) ** -0.5), ("paper", 0.02)])
def test_the_start_is_that_of_the_paper(init, std):
    from llmad import Site

    layer = llmad.parse_spec(f"lora[r=64,init={init}]").build(Site("x", "attn.q", 0, 256, 256))
    assert layer.up.weight.count_nonzero() == 0
    assert layer.down.weight.std().item() == pytest.approx(std, rel=0.05)


def test_dropout_acts_on_the_branch_alone_and_in_training_alone(llama, ids, perturb):
    llmad.attach(llama, "lora[dropout=0.5]")
    perturb(llama)
    assert torch.equal(llama(ids).logits, llama(ids).logits)
    llama.train()
    assert not torch.equal(llama(ids).logits, llama(ids).logits)


@pytest.mark.parametrize("spec", PLACEMENTS)
def test_peft_loads_what_was_saved(model, architecture, tiny, logits, perturb, tmp_path, spec):
    llmad.attach(model, spec)
    perturb(model)
    folder = llmad.save(model, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(tiny(architecture), folder)
    torch.testing.assert_close(logits(theirs.eval()), logits(model), atol=1e-5, rtol=1e-5)


def test_on_a_fused_linear_the_ranks_add_up_for_peft(tiny, tmp_path):
    model = llmad.attach(tiny("bloom"), "lora[r=4,alpha=8,sites=attn.q+attn.v+mlp.up]")
    config = json.loads((llmad.save(model, tmp_path / "a") / "adapter_config.json").read_text())
    assert set(config["rank_pattern"].values()) == {8}
    assert set(config["alpha_pattern"].values()) == {16}
    assert all("query_key_value" in path for path in config["rank_pattern"])


def test_the_whole_and_a_role_of_a_fused_linear_save_and_load(tiny, logits, perturb, tmp_path):
    model = llmad.attach(tiny("bloom"), "lora[r=2,sites=attn.q+path:.*query_key_value]")
    perturb(model)
    folder = llmad.save(model, tmp_path / "a")
    assert torch.equal(logits(llmad.load(tiny("bloom"), folder)), logits(model))
    theirs = peft.PeftModel.from_pretrained(tiny("bloom"), folder)
    torch.testing.assert_close(logits(theirs.eval()), logits(model), atol=1e-5, rtol=1e-5)


def peft_folder(model, tmp_path, **options):
    """A LoRA that PEFT made and wrote."""
    torch.manual_seed(5)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, **options)
    theirs = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path / "peft")
    return theirs, tmp_path / "peft"


def test_what_peft_wrote_loads_here(architecture, tiny, logits, tmp_path):
    theirs, folder = peft_folder(tiny(architecture), tmp_path, target_modules=TARGETS[architecture])
    ours = llmad.load(tiny(architecture), folder)
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits(ours), logits(tiny(architecture)), atol=1e-3)


@pytest.mark.parametrize("options", [
    {"use_rslora": True}, {"rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 6}},
    {"rank_pattern": {"self_attn.v_proj": 2, "v_proj": 6}}, {"use_rslora": True, "rank_pattern": {"v_proj": 3}},
])  # fmt: skip
def test_pefts_ranks_and_scalings_are_understood(tiny, logits, tmp_path, options):
    theirs, folder = peft_folder(tiny("llama"), tmp_path, target_modules=TARGETS["llama"], **options)
    ours = llmad.load(tiny("llama"), folder)
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-5, rtol=1e-5)
    again = llmad.load(tiny("llama"), llmad.save(ours, tmp_path / "again"))
    assert torch.equal(logits(again), logits(ours))


def test_a_rank_pattern_gives_ranks_and_scales_by_site(llama):
    llmad.attach(llama, "lora[r=8,alpha=16,sites=linear,rank_pattern={attn.*: 4, attn.q: 2}]")
    ranks = {name: len(parameter) for name, parameter in llmad.parameters(llama) if name.endswith("down.weight")}
    layer = "model.layers.0."
    assert ranks[layer + "self_attn.q_proj:down.weight"] == 2
    assert ranks[layer + "self_attn.v_proj:down.weight"] == 4
    assert ranks[layer + "mlp.up_proj:down.weight"] == 8
    (lora,) = llama.model.layers[0].self_attn.q_proj.adapters["default"].values()
    assert lora.scale == 8


@pytest.mark.parametrize(("pattern", "words"), [
    ("{mlp.up: 4}", "rank_pattern 'mlp.up' covers none"), ("{attn.p: 4}", "attn.p"), ("{attn.q: 0}", "greater than 0"),
    ("{attn.q", "rank_pattern"), ("3", "rank_pattern"),
])  # fmt: skip
def test_a_wrong_rank_pattern_changes_nothing(llama, snapshot, pattern, words):
    before = snapshot(llama)
    with pytest.raises(llmad.UsageError, match=words):
        llmad.attach(llama, f"lora[rank_pattern={pattern}]")
    assert snapshot(llama) == before


def test_a_rank_pattern_survives_its_text():
    spec = llmad.parse_spec("lora[sites=attn.q+mlp.up,rank_pattern={attn.q: 4, mlp.*: 2}]")
    assert llmad.parse_spec(str(spec)) == spec


@pytest.mark.parametrize("targets", [r".*\.[01]\..*(q_proj|up_proj)", "all-linear", ["layers.1.mlp.up_proj", "v_proj"]])
def test_every_form_of_pefts_targets_is_understood(tiny, logits, tmp_path, targets):
    theirs, folder = peft_folder(tiny("llama"), tmp_path, target_modules=targets)
    torch.testing.assert_close(logits(llmad.load(tiny("llama"), folder)), logits(theirs), atol=1e-5, rtol=1e-5)


def test_what_peft_wrote_can_be_saved_and_loaded_again(tiny, logits, tmp_path):
    theirs, folder = peft_folder(tiny("llama"), tmp_path, target_modules=r"model\.layers\.[0-9]+\..*_proj")
    again = llmad.save(llmad.load(tiny("llama"), folder), tmp_path / "again")
    torch.testing.assert_close(logits(llmad.load(tiny("llama"), again)), logits(theirs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [
    {"lora_bias": True},
    {"alpha_pattern": {"q_proj": 2}}, {"modules_to_save": ["lm_head"]}, {"layers_to_transform": [0]},
    {"init_lora_weights": "pissa"}, {"exclude_modules": "v_proj"}, {"trainable_token_indices": [1]},
    {"layer_replication": [[0, 2], [1, 3]]}, {"target_parameters": ["q_proj.weight"]},
])  # fmt: skip
def test_more_than_plain_lora_is_refused(tiny, tmp_path, snapshot, options):
    folder = tmp_path / "peft"
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], **options)
    config.save_pretrained(folder)
    model = tiny("llama")
    before = snapshot(model)
    with pytest.raises(ModelError) as caught:
        llmad.load(model, folder)
    assert caught.value.code == "foreign-adapter"
    assert next(iter(options)) in str(caught.value)
    assert snapshot(model) == before


@pytest.mark.parametrize(("change", "code"), [
    ({"peft_type": "LOHA"}, "foreign-adapter"), ({"peft_type": None}, "foreign-adapter"), ({"r": 0}, "bad-option"),
    ({"r": None}, "bad-option"), ({"target_modules": None}, "other-base"), ({"target_modules": ["no"]}, "other-base"),
    ({"target_modules": "("}, "bad-option"), ({"from_the_future": 1}, "foreign-adapter"),
])  # fmt: skip
def test_a_config_that_cannot_be_right_is_refused(tiny, tmp_path, snapshot, change, code):
    _, folder = peft_folder(tiny("llama"), tmp_path, target_modules=["q_proj"])
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    model = tiny("llama")
    before = snapshot(model)
    with pytest.raises(ModelError) as caught:
        llmad.load(model, folder)
    assert caught.value.code == code
    assert snapshot(model) == before


def test_nothing_below_the_lowest_adapter_is_gone_back_through(llama, ids):
    llmad.attach(llama, "lora[sites=attn.q+mlp.down,layers=-2:]")
    back = []

    def watch(number, out):
        if out.requires_grad:
            out.register_hook(lambda _: back.append(number))

    for number, block in enumerate(llama.model.layers):
        block.register_forward_hook(lambda *call, number=number: watch(number, call[2]))
    embedded = []
    llama.model.embed_tokens.register_forward_hook(lambda *call: embedded.append(call[2].requires_grad))
    llama(ids, labels=ids).loss.backward()
    assert embedded == [False]
    assert back == [2, 1]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_step_compiles_as_one_graph(llama, dropout, perturb):
    llmad.attach(llama, f"lora[sites=mlp.up+mlp.down,dropout={dropout},layers=0]")
    perturb(llama)
    mlp, x = llama.model.layers[0].mlp.eval(), torch.randn(2, 5, 32)
    compiled = torch.compile(mlp, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), mlp(x), atol=1e-5, rtol=1e-5)
    mlp.train()
    compiled(x).square().sum().backward()
    assert all(parameter.grad.count_nonzero() for _, parameter in llmad.parameters(llama))


def test_a_part_that_is_computed_a_second_time_has_the_same_gradients(llama, perturb):
    llmad.attach(llama, "lora[sites=mlp.up+mlp.down,dropout=0.2,layers=0]")
    perturb(llama)
    mlp, found = llama.model.layers[0].mlp.train(), []
    for call in (mlp, lambda x: checkpoint(mlp, x, use_reentrant=False)):
        llama.zero_grad()
        torch.manual_seed(4)
        x = torch.randn(2, 5, 32, requires_grad=True)
        call(x).square().sum().backward()
        found.append([x.grad, *(parameter.grad for _, parameter in llmad.parameters(llama))])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
