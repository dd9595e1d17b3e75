"""Adapters on a base that accelerate places: on one device, offloaded to the CPU or the disk, before and after.

What is offloaded is on the meta device between two calls, on a machine without an accelerator too.
"""

import json
from tempfile import mkdtemp

import accelerate
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache

import llmad
from llmad import ModelError, UsageError, placement, pretrained
from llmad.asking import Scoring
from llmad.attachment import attached
from llmad.exam import Exam
from llmad.fingerprint import fingerprint
from llmad.run import train_adapter
from llmad.scoring import evaluate_adapters

METHODS = [
    "lora", "dora", "ia3", "series", "parallel", "compacter", "invertible", "loreft", "prompt[num_virtual_tokens=3]",
    "p-tuning[num_virtual_tokens=3]", "prefix[num_virtual_tokens=3]",
]  # fmt: skip
MIXED = {
    "model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk",
    "model.layers.2": "disk", "model.norm": "disk", "model.adapters": "disk", "lm_head": "disk",
}  # fmt: skip
CPU = torch.device("cpu")
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def dispatched(model, folder):
    accelerate.dispatch_model(model, {"": "cpu"}, main_device="cpu", force_hooks=True)


def on_cpu(model, folder):
    accelerate.cpu_offload(model, CPU)


def on_disk(model, folder):
    accelerate.disk_offload(model, folder, CPU)


def mixed(model, folder):
    skip, places = model._skip_keys_device_placement, there(model, MIXED)
    accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=folder, skip_keys=skip)


def on_cuda(model, folder):
    model.to("cuda:0")


def on_cuda_from_cpu(model, folder):
    accelerate.cpu_offload(model, torch.device("cuda:0"))


def on_both(model, folder):
    places = {path: 0 if path in ("model.embed_tokens", "model.layers.0") else "cpu" for path in MIXED}
    accelerate.dispatch_model(model, there(model, places), skip_keys=model._skip_keys_device_placement)


def there(model, places):
    """Of a map, the modules that the model has."""
    return {path: place for path, place in places.items() if path in dict(model.named_modules())}


PLACES = [dispatched, on_cpu, mixed]
PLACES += [pytest.param(way, marks=cuda) for way in (on_cuda, on_cuda_from_cpu, on_both)]
OFFLOADED = [on_cpu, on_disk, mixed]


@pytest.fixture(params=PLACES)
def place(request, tmp_path):
    """A way to place a model."""
    return lambda model: request.param(model, mkdtemp(dir=tmp_path))


@pytest.fixture(params=OFFLOADED)
def offload(request, tmp_path):
    """A way to place a model that leaves weights on the meta device between calls."""
    return lambda model: request.param(model, mkdtemp(dir=tmp_path))


@pytest.fixture(params=["hooks first", "adapter first"])
def adapted(request, perturb):
    """Put an adapter and hooks on a model, in either order."""

    def adapted(model, method, place):
        steps = [place, lambda model: attach(model, method, perturb)]
        for step in steps if request.param == "hooks first" else reversed(steps):
            step(model)
        return model

    return adapted


def attach(model, method, perturb):
    torch.manual_seed(0)
    llmad.attach(model, method)
    perturb(model)
    return model


def train(model, ids, parameters, steps=4):
    """The losses, and how many of the parameters never had a gradient."""
    adam, losses, touched = torch.optim.AdamW(parameters, lr=1e-2), [], set()
    for _ in range(steps):
        adam.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        touched |= {id(own) for own in parameters if own.grad is not None and own.grad.count_nonzero()}
        adam.step()
        losses.append(loss.item())
    return losses, len(parameters) - len(touched)


def hooks(model):
    return {path: module._hf_hook for path, module in model.named_modules() if hasattr(module, "_hf_hook")}


def same(one, other):
    """Bit for bit on the CPU; an accelerator rounds in its own way."""
    if torch.cuda.is_available():
        return torch.allclose(one.cpu(), other.cpu(), atol=1e-4)
    return torch.equal(one, other)


@pytest.mark.parametrize("method", METHODS)
def test_logits_are_those_of_the_model_in_one_place(tiny, logits, perturb, adapted, place, method):
    model = adapted(tiny("llama"), method, place)
    assert same(logits(model), logits(attach(tiny("llama"), method, perturb)))


@pytest.mark.parametrize("method", METHODS)
def test_training_is_that_of_the_model_in_one_place(tiny, ids, perturb, adapted, place, method):
    model, twin = adapted(tiny("llama"), method, place), attach(tiny("llama"), method, perturb)
    losses, left_out = train(model, ids, [own for _, own in llmad.parameters(model)])
    wanted, _ = train(twin, ids, [own for _, own in llmad.parameters(twin)])
    assert left_out == 0
    assert losses == pytest.approx(wanted, abs=1e-4 if torch.cuda.is_available() else 0)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("method", METHODS)
def test_detach_gives_back_the_base_with_its_hooks(tiny, logits, adapted, place, method):
    plain = tiny("llama")
    before = logits(plain)
    place(plain)
    model = adapted(tiny("llama"), method, place)
    logits(model)
    llmad.detach(model)
    assert same(logits(model), before)
    assert hooks(model).keys() == hooks(plain).keys()
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    accelerate.hooks.remove_hook_from_submodules(model)
    weights = tiny("llama").state_dict()
    assert all(torch.equal(value.cpu(), weights[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_is_saved_from_and_loaded_into_a_placed_base(tiny, logits, adapted, place, tmp_path, method):
    model = adapted(tiny("llama"), method, place)
    before = logits(model)
    folder = llmad.save(model, tmp_path / "adapter")
    assert same(logits(llmad.load(tiny("llama"), folder)), before)
    llmad.detach(model)
    assert same(logits(llmad.load(model, folder)), before)


@pytest.mark.parametrize("method", ["lora", "dora", "ia3"])
def test_an_offloaded_weight_is_not_merged_into(tiny, logits, adapted, offload, method):
    model = adapted(tiny("llama"), method, offload)
    before = logits(model)
    with pytest.raises(ModelError) as caught:
        llmad.merge(model)
    assert caught.value.code == "not-mergeable"
    assert "offloaded" in str(caught.value)
    assert "device_map=cpu" in caught.value.hint
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("method", ["lora", "dora", "ia3"])
def test_a_dispatched_weight_is_merged_into(tiny, logits, adapted, tmp_path, method):
    model = adapted(tiny("llama"), method, lambda model: dispatched(model, tmp_path))
    before = logits(model)
    llmad.merge(model)
    assert torch.allclose(logits(model), before, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_an_optimizer_from_before_the_first_call_trains_what_was_offloaded(tiny, ids, perturb, offload, method):
    model = attach(tiny("llama"), method, perturb)
    offload(model)
    parameters = [own for own in model.parameters() if own.requires_grad]  # as trainers that know no adapters do
    losses, _ = train(model, ids, parameters)
    assert losses[-1] < losses[0]
    assert not any(own.is_meta for _, own in llmad.parameters(model))


def test_flags_come_back_after_a_call_in_inference_mode(tiny, ids, offload):
    model = tiny("llama")
    model.lm_head.weight.requires_grad_(False)
    offload(model)
    llmad.attach(model, "lora")
    with torch.inference_mode():
        model(ids)
    llmad.detach(model)
    flags = {name: own.requires_grad for name, own in model.named_parameters()}
    assert {name for name, flag in flags.items() if not flag} == {"lm_head.weight"}
    model(ids, labels=ids).loss.backward()


def test_shared_parameters_stay_shared(tiny, logits, offload):
    model = llmad.attach(tiny("llama"), "compacter")
    count = len(list(llmad.parameters(model)))
    offload(model)
    logits(model)
    assert len(list(llmad.parameters(model))) == count
    assert len({id(module.rule) for module in attached(model, "default").modules.values()}) == 1


def test_an_offloaded_base_has_the_fingerprint_of_its_weights(tiny, offload):
    model = tiny("llama")
    before = fingerprint(model)
    offload(model)
    assert fingerprint(model) == before
    assert fingerprint(tiny("llama", seed=1)) != before


def test_an_offloaded_base_with_tied_weights_has_its_fingerprint(tiny):
    model = tiny("opt")
    assert model.lm_head.weight is model.get_input_embeddings().weight
    before = fingerprint(model)
    on_cpu(model, "")
    assert fingerprint(model) == before


def test_a_meta_model_has_no_weight_to_bring_in():
    with torch.device("meta"):
        linear = nn.Linear(2, 3)
    with placement.in_memory(linear):
        assert linear.weight.is_meta


def test_pairs_go_to_the_device_of_their_layer(tiny):
    """Stands for two accelerators: the hook of the last layer says another device than the adapter's."""
    model = llmad.attach(tiny("llama"), "prefix[num_virtual_tokens=3]")
    hook = accelerate.hooks.AlignDevicesHook(execution_device=torch.device("meta"))
    model.model.layers[2].self_attn._hf_hook = hook
    (module,) = attached(model, "default").modules.values()
    cache = DynamicCache(config=model.config)
    module._fill(cache, 0, 2)
    assert [layer.keys.device.type for layer in cache.layers] == ["cpu", "cpu", "meta"]


def test_where_a_module_computes(tiny):
    model = tiny("llama")
    assert placement.device(model) == CPU
    assert placement.device(nn.Identity()) == CPU
    on_cpu(model, "")
    assert placement.device(model) == CPU
    model.model.embed_tokens._hf_hook.execution_device = "cuda:1"
    assert placement.device(model) == torch.device("cuda:1")


DISK = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
DISK |= {"model.layers": "disk"}


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}, {"": "disk"}, DISK])
def test_a_folder_is_loaded_where_the_map_says(folder, ids, tmp_path, perturb, device_map):
    plain = pretrained.load(folder).model
    model = pretrained.load(folder, device_map=device_map, offload_folder=str(tmp_path)).model
    assert any(own.is_meta for own in model.parameters()) == ("disk" in str(device_map))
    for both in (plain, model):
        attach(both, "lora", perturb)
    assert same(model(ids).logits, plain(ids).logits)
    losses, left_out = train(model, ids, [own for _, own in llmad.parameters(model)])
    assert left_out == 0
    assert losses[-1] < losses[0]
    assert placement.devices(model) == ("disk" if device_map == {"": "disk"} else placement.devices(model))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("device_map", ["cuda", "cuda:1", 0, {"": "cuda:0"}])
def test_a_device_that_is_not_there_is_refused(folder, device_map):
    with pytest.raises(UsageError) as caught:
        pretrained.load(folder, device_map=device_map)
    assert caught.value.code == "no-device"


@cuda
def test_a_model_is_placed_automatically(folder, ids, perturb):
    model, plain = pretrained.load(folder, device_map="auto").model, pretrained.load(folder).model
    for both in (model, plain):
        attach(both, "lora", perturb)
    assert {own.device.type for own in model.parameters()} == {"cuda"}
    assert same(model(ids.cuda()).logits, plain(ids).logits)


@cuda
@pytest.mark.parametrize("method", METHODS)
def test_more_than_the_accelerator_holds_is_offloaded(folder, ids, perturb, method):
    room = {0: "300KB", "cpu": "1GB"}
    model = AutoModelForCausalLM.from_pretrained(folder, device_map="auto", max_memory=room).eval()
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    for both in (model, plain):
        attach(both, method, perturb)
    assert any(own.is_meta for own in model.parameters())
    assert same(model(ids.cuda()).logits, plain(ids).logits)


def test_a_run_trains_scores_and_records_on_a_mapped_base(told, few_rows, tmp_path):
    plain, mapped = tmp_path / "plain", tmp_path / "mapped"
    seen = []
    train_adapter(told(output_dir=str(plain)), lambda _: None)
    train_adapter(told(output_dir=str(mapped), device_map=DISK, offload_folder=str(tmp_path / "off")), seen.append)
    assert seen[0].device == "cpu+disk"
    assert json.loads((mapped / "recipe.json").read_text())["device_map"] == DISK
    written = [(run / "adapter" / "adapter_model.safetensors").read_bytes() for run in (plain, mapped)]
    assert torch.cuda.is_available() or written[0] == written[1]
    for device_map in (None, DISK):
        found = evaluate_adapters([mapped], Exam(data=few_rows, limit=2, device_map=device_map), seen.append)
        assert found.results[0].score.n == 2
    answers = [event.answer.output_pred for event in seen if isinstance(event, Scoring)]
    assert len(answers) == 8  # of the base and the adapter
    assert answers[:4] == answers[4:]


def test_a_run_goes_on_on_other_devices(told, tmp_path):
    told_there = {"output_dir": str(tmp_path / "run"), "save_steps": 2}
    train_adapter(told(**told_there, max_steps=2), lambda _: None)
    more = []
    train_adapter(told(**told_there, max_steps=4, device_map="cpu"), more.append, resume=tmp_path / "run")
    assert more[0].done == 2


GOOD_MAPS = [None, "auto", "cpu", "cuda", "cuda:1", 0, {"": "cpu"}, {"model": 0, "lm_head": "disk"}]


@pytest.mark.parametrize("device_map", GOOD_MAPS)
def test_a_recipe_takes_a_map(told, device_map):
    assert told(device_map=device_map).device_map == device_map


@pytest.mark.parametrize("device_map", ["gpu", "disk", "", -1, True, 1.5, ["cpu"], {"model": "auto"}, {"model": None}])
def test_a_recipe_refuses_what_is_no_map_in_one_line(told, device_map):
    with pytest.raises(UsageError) as caught:
        told(device_map=device_map)
    assert caught.value.code == "bad-value"
    assert str(caught.value).startswith("test: device_map: ")
    assert "\n" not in str(caught.value)


def test_a_recipe_refuses_an_offload_folder_that_nothing_fills(told):
    with pytest.raises(UsageError, match="only a device_map puts weights on disk"):
        told(offload_folder="somewhere")
    assert told(offload_folder="somewhere", device_map="auto").offload_folder == "somewhere"
