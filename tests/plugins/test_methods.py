"""What every built-in method promises on every architecture."""

import ast
import copy
import inspect
from pathlib import Path

import pytest
import torch

import llmad
import llmad_plugins.adapters
from llmad.quantization import prepare
from llmad.registry import registry

METHODS = ["lora", "series", "parallel"]
FOLDER = Path(llmad_plugins.adapters.__file__).parent
FILES = {method.name: Path(inspect.getfile(method)) for method in registry().methods()}
FILES = {name: path for name, path in FILES.items() if path.parent == FOLDER}


@pytest.mark.parametrize("name", FILES)
def test_a_method_is_one_short_file_and_no_other_knows_its_name(name):
    assert len(FILES[name].read_text().splitlines()) <= 120
    others = set(FOLDER.glob("*.py")) - {FILES[name], FOLDER / "presets.py"}
    for path in others:
        tree = ast.parse(path.read_text())
        words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        imports = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert name not in words, path.name
        assert f"llmad_plugins.adapters.{FILES[name].stem}" not in imports, path.name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_fresh_adapter_changes_no_bit(model, logits, method, dtype):
    model.to(dtype)
    before = logits(model)
    llmad.attach(model, method)
    assert torch.equal(logits(model), before)
    assert logits(model).dtype == dtype


@pytest.mark.parametrize("spec", [
    "lora[sites=linear]", "lora[sites=linear+head]", "lora[sites=attn.q@before+mlp.down@before]",
    "series[sites=linear]", "series[sites=attn]", "series[sites=block]", "series[sites=head]",
    "series[sites=attn@before+block@before]", "series[sites=attn.v@before+mlp.up@before]",
    "parallel[sites=linear]", "parallel[sites=attn]", "parallel[sites=block]", "parallel[sites=attn.k@before]",
])  # fmt: skip
def test_a_fresh_adapter_changes_no_bit_at_any_place(model, logits, spec):
    before = logits(model)
    llmad.attach(model, spec)
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("architecture", ["llama", "bloom", "gptj"])
@pytest.mark.parametrize("spec", ["series[sites=mlp]", "parallel[sites=mlp]", "series[sites=mlp@before]"])
def test_a_fresh_adapter_changes_no_bit_at_the_mlp(model, logits, spec):
    before = logits(model)
    llmad.attach(model, spec)
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("spec", [
    "lora", "lora[sites=attn.q@before]", "series", "parallel", "prompt[num_virtual_tokens=2]",
    "series[sites=attn]", "series[sites=block]", "parallel[sites=block]", "parallel[sites=attn.k@before]",
    "series[sites=path:.*layers.*]",
])  # fmt: skip
def test_a_perturbed_adapter_takes_effect_and_detach_undoes_it(model, logits, perturb, snapshot, spec):
    if "path:" in spec:
        spec = spec.replace(".*layers.*", r".*\.1\..*(dense|proj|fc)_?.*")
    next(model.parameters()).requires_grad_(False)
    known, before = snapshot(model), logits(model)
    llmad.attach(model, spec)
    perturb(model)
    assert not torch.allclose(logits(model), before, atol=1e-3)
    assert llmad.detach(model) is model
    assert torch.equal(logits(model), before)
    assert snapshot(model) == known


@pytest.mark.parametrize("method", [*METHODS, "prompt"])
def test_the_base_keeps_its_state_dict_keys_and_bits(model, method):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert llmad.attach(model, method) is model
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(".adapters.default." in key for key in after.keys() - before.keys())


TRAINED = ["lora", "lora[sites=linear,init=paper,dropout=0.1]", "series", "parallel", "series[init=paper]"]
TRAINED += ["parallel[scaling=learned]", "series[scaling=learned,init=paper,sites=attn]", "parallel[scaling=0.5]"]
TRAINED += ["prompt[num_virtual_tokens=3]", "prompt[init=zero]", "prompt[init=paper]"]
TRAINED += [f"parallel[activation={name}]" for name in ("gelu", "silu", "tanh", "leaky_relu", "sigmoid", "linear")]


@pytest.mark.parametrize("spec", TRAINED)
def test_two_steps_train_every_adapter_parameter_and_nothing_else(model, ids, spec):
    base = {key: value.clone() for key, value in model.state_dict().items()}
    llmad.attach(model, spec).train()
    own = dict(llmad.parameters(model))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    touched = set()
    for _ in range(2):
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        touched |= {name for name, parameter in own.items() if parameter.grad.count_nonzero()}
        optimizer.step()
    assert touched == own.keys()
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in own.values()}
    assert all(torch.equal(model.state_dict()[key], value) for key, value in base.items())


@pytest.mark.parametrize("method", [*METHODS, "prompt"])
def test_a_deep_copy_works_and_is_independent(model, logits, perturb, method):
    llmad.attach(model, method)
    perturb(model)
    before = logits(model)
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin), before)
    perturb(twin, seed=12)
    assert not torch.equal(logits(twin), before)
    with llmad.disabled(twin):
        assert torch.equal(logits(model), before)
    llmad.detach(twin)
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("method", [*METHODS, "prompt"])
def test_dtype_and_mode_of_the_model_reach_the_adapter(model, logits, method):
    llmad.attach(model, method)
    model.train()
    adapters = [module for name, module in model.named_modules() if ".adapters." in name]
    assert all(module.training for module in adapters)
    model.eval()
    assert not any(module.training for module in adapters)
    model.to(torch.bfloat16)
    assert {parameter.dtype for _, parameter in llmad.parameters(model)} == {torch.bfloat16}
    assert logits(model).isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_trained_weights_stay_in_float32_beside_a_bfloat16_base(model, ids, method):
    llmad.attach(model.to(torch.bfloat16), method)
    model(ids, labels=ids).loss.backward()
    for _, parameter in llmad.parameters(model):
        assert parameter.dtype == parameter.grad.dtype == torch.float32


@pytest.mark.parametrize("method", [*METHODS, "prompt"])
def test_a_seed_fixes_the_weights(model, method):
    torch.manual_seed(3)
    llmad.attach(model, method, "a")
    torch.manual_seed(3)
    llmad.attach(model, method, "b")
    pairs = zip(llmad.parameters(model, "a"), llmad.parameters(model, "b"), strict=True)
    assert all(torch.equal(first, second) for (_, first), (_, second) in pairs)


@pytest.mark.parametrize("method", [*METHODS, "prompt"])
def test_it_attaches_on_the_meta_device(architecture, tiny, method):
    model = llmad.attach(tiny(architecture).to("meta"), method)
    assert all(parameter.is_meta for _, parameter in llmad.parameters(model))


def quantised(model, kind):
    """The model with the q and v of every layer as bitsandbytes' linears."""
    import bitsandbytes as bnb

    for layer in model.model.layers:
        for name in ("q_proj", "v_proj"):
            plain = getattr(layer.self_attn, name)
            sizes = (plain.in_features, plain.out_features)
            if kind == "int8":
                linear = bnb.nn.Linear8bitLt(*sizes, bias=False, has_fp16_weights=False)
            else:
                linear = bnb.nn.Linear4bit(*sizes, bias=False, quant_type="nf4", compute_dtype=torch.float32)
            linear.load_state_dict(plain.state_dict())
            setattr(layer.self_attn, name, linear.to("cpu"))
    prepare(model)
    return model


@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.parametrize("spec", ["lora", "series[sites=attn.q+attn.v]", "parallel[sites=attn.q@before]"])
@pytest.mark.filterwarnings("ignore:MatMul8bitLt. inputs will be cast:UserWarning")  # it computes int8 from float16
def test_a_quantised_base_is_adapted_as_it_is(llama, ids, logits, perturb, spec, kind):
    model = quantised(llama, kind).eval()
    before = logits(model)
    linear = model.model.layers[0].self_attn.q_proj
    weight, own = linear.weight, type(linear)
    llmad.attach(model, spec)
    assert torch.equal(logits(model), before)
    assert isinstance(linear, own)
    model(ids, labels=ids).loss.backward()
    assert all(p.grad is not None for _, p in llmad.parameters(model))
    perturb(model)
    assert not torch.equal(logits(model), before)
    with pytest.raises(llmad.ModelError):
        llmad.merge(model)
    llmad.detach(model)
    assert linear.weight is weight
    assert type(linear) is own
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_method_that_needs_the_weight_reads_a_quantised_one(llama, logits, perturb, kind):
    model = quantised(llama, kind).eval()
    known = logits(model)
    llmad.attach(model, "dora")
    assert torch.equal(logits(model), known)
    perturb(model)
    assert not torch.equal(logits(model), known)


def test_a_method_that_needs_the_weight_refuses_one_that_nobody_reads(llama, logits, snapshot):
    for layer in llama.model.layers:
        layer.self_attn.q_proj.weight = torch.nn.Parameter(torch.zeros(32, 32, dtype=torch.int8), requires_grad=False)
    known = snapshot(llama)
    with pytest.raises(
        llmad.ModelError, match="its weight is quantised, and no installed quantizer reads it"
    ) as caught:
        llmad.attach(llama, "dora")
    assert caught.value.code == "no-weight"
    assert snapshot(llama) == known
