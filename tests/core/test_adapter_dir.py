import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import llmad
from llmad import AdapterModule, AdapterSpec, ModelError, Sites, UsageError
from llmad.adapter_dir import read_about
from llmad.attachment import state
from llmad.errors import StorageError
from llmad.quantization import quantization

SPECS = ["lora[sites=linear,r=4]", "lora[sites=attn.q@before]", "series", "parallel[scaling=learned,bottleneck=4]",
         "prompt[num_virtual_tokens=3]"]  # fmt: skip

FRESH = """
import json, sys
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
import llmad

torch.set_num_threads(1)
for base in sys.argv[2:]:
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    for job in json.load(open(sys.argv[1])):
        if job["base"] == base:
            llmad.load(model, job["adapter"])
            with torch.no_grad():
                save_file({"logits": model(torch.tensor(job["ids"])).logits}, job["out"])
            llmad.detach(model)
"""


@pytest.fixture
def adapter(tiny, tmp_path, perturb):
    """A LoRA of a tiny BLOOM, on disk."""
    model = llmad.attach(tiny("bloom"), "lora[r=4]")
    perturb(model)
    return llmad.save(model, tmp_path / "adapter")


def edit(folder, change):
    """Change the tensors of an adapter directory."""
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def refused(model, folder, snapshot, **options):
    """The error with which loading is refused; nothing may have changed."""
    before = snapshot(model)
    with pytest.raises(ModelError) as caught:
        llmad.load(model, folder, **options)
    assert snapshot(model) == before
    assert caught.value.exit_code == 4
    assert str(folder) in str(caught.value)
    return caught.value


def test_a_fresh_process_computes_the_same(tiny, tmp_path, ids, logits, perturb, python):
    jobs, bases = [], [tmp_path / name for name in ("llama", "bloom", "opt", "opt-350m", "gptj")]
    for base in bases:
        architecture = base.name
        tiny(architecture).save_pretrained(base)
        for number, spec in enumerate(SPECS):
            model = llmad.attach(tiny(architecture), spec)
            perturb(model)
            folder = llmad.save(model, tmp_path / f"{architecture}-{number}")
            out = tmp_path / f"{architecture}-{number}.logits"
            jobs.append({"base": str(base), "adapter": str(folder), "ids": ids.tolist(), "out": str(out)})
            save_file({"logits": logits(model)}, out.with_suffix(".wanted"))
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    python(FRESH, str(tmp_path / "jobs.json"), *map(str, bases))
    for job in jobs:
        found, wanted = load_file(job["out"]), load_file(Path(job["out"]).with_suffix(".wanted"))
        assert torch.equal(found["logits"], wanted["logits"]), job["adapter"]


def test_the_directory_holds_json_and_tensors_only(adapter):
    assert {path.name for path in adapter.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "llmad.json"
    }  # fmt: skip


def test_the_record_says_where_the_adapter_comes_from(adapter):
    about = read_about(adapter)
    assert about["method"] == "lora"
    assert about["options"]["r"] == 4
    assert about["base"]["model_type"] == "bloom"
    assert about["plugin"]["distribution"] == "llmad"
    assert [site["role"] for site in about["sites"]] == ["attn.q", "attn.v"] * 3


def test_more_can_be_recorded(llama, tmp_path):
    llmad.attach(llama, "lora")
    assert read_about(llmad.save(llama, tmp_path / "a", about={"recipe": {"seed": 1}}))["recipe"] == {"seed": 1}


def test_saving_again_gives_the_same_bytes(adapter, tiny, tmp_path):
    model = llmad.load(tiny("bloom"), adapter)
    again = llmad.save(model, tmp_path / "again")
    for path in adapter.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_saving_over_an_adapter_replaces_it(adapter, tiny, perturb):
    model = llmad.load(tiny("bloom"), adapter)
    perturb(model, seed=5)
    llmad.save(model, adapter)
    twin = llmad.load(tiny("bloom"), adapter)
    for (_, a), (_, b) in zip(llmad.parameters(model), llmad.parameters(twin), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("trainable", [True, False])
def test_trainable_says_whether_it_goes_on_training(adapter, tiny, trainable):
    model = llmad.load(tiny("bloom"), adapter, trainable=trainable)
    assert {parameter.requires_grad for _, parameter in llmad.parameters(model)} == {trainable}
    assert not any(p.requires_grad for n, p in model.named_parameters() if ".adapters." not in n)


def test_several_can_be_loaded_under_names(adapter, tiny, logits):
    model = llmad.load(tiny("bloom"), adapter, "a")
    alone = logits(model)
    llmad.load(model, adapter, "b")
    assert not torch.equal(logits(model), alone)
    assert torch.equal(logits(llmad.activate(model, "b")), alone)


def test_a_bfloat16_copy_of_the_base_is_the_same_base(adapter, tiny):
    model = llmad.load(tiny("bloom").to(torch.bfloat16), adapter)
    assert {parameter.dtype for _, parameter in llmad.parameters(model)} == {torch.float32}


FIRST = "base_model.model.transformer.h.0.self_attention.query_key_value.lora_"


@pytest.mark.parametrize(("change", "code", "words"), [
    (lambda t: t.pop(FIRST + "A.weight"), "missing-tensor", "h.0"),
    (lambda t: t.update(extra=torch.zeros(1)), "extra-tensor", "extra"),
    (lambda t: t.update({FIRST + "A.weight": torch.zeros(8, 31)}), "misshapen-tensor", "(4, 31), not (4, 32)"),
    (lambda t: t.update({FIRST + "A.weight": torch.zeros(12, 32)}), "misshapen-tensor", "(12, 32), not (8, 32)"),
    (lambda t: t.update({FIRST + "A.weight": torch.zeros(6, 32)}), "misshapen-tensor", "h.0"),
    (lambda t: t.update({FIRST + "B.weight": torch.zeros(97, 8)}), "misshapen-tensor", "(97, 8), not (96, 8)"),
    (lambda t: t.update({FIRST + "B.weight": torch.zeros(3, 8)}), "broken-adapter", "lora"),
    (lambda t: t.update({FIRST + "B.weight": torch.zeros(96)}), "broken-adapter", "lora"),
    (lambda t: t.update({FIRST + "B.weight": torch.tensor(1.0)}), "broken-adapter", "lora"),
    (lambda t: t[FIRST + "B.weight"].fill_(1.0), "extra-tensor", "values that have no place"),
    (lambda t: t[FIRST + "A.weight"][0].fill_(float("nan")), "not-finite", "h.0"),
    (lambda t: t[FIRST + "A.weight"][0].fill_(float("inf")), "not-finite", "h.0"),
    (lambda t: t.clear(), "missing-tensor", "h.0"),
])  # fmt: skip
def test_tensors_that_do_not_fit_are_refused(adapter, tiny, snapshot, change, code, words):
    edit(adapter, change)
    error = refused(tiny("bloom"), adapter, snapshot)
    assert error.code == code
    assert words in str(error)


@pytest.mark.parametrize(("change", "code"), [
    (lambda t: t.popitem(), "missing-tensor"),
    (lambda t: t.update(extra=torch.zeros(1)), "extra-tensor"),
    (lambda t: t.update({"model.layers.0.self_attn.o_proj:extra": torch.zeros(1)}), "extra-tensor"),
    (lambda t: t.update({key: torch.zeros(3) for key in list(t)[:1]}), "misshapen-tensor"),
    (lambda t: next(iter(t.values())).fill_(float("nan")), "not-finite"),
])  # fmt: skip
def test_tensors_of_a_method_without_a_peer_are_held_to_the_same(tiny, tmp_path, snapshot, change, code):
    folder = llmad.save(llmad.attach(tiny("llama"), "series"), tmp_path / "series")
    edit(folder, change)
    assert refused(tiny("llama"), folder, snapshot).code == code


@pytest.mark.parametrize(("architecture", "options", "words"), [
    ("bloom", {"layers": 4}, "trained at 6 sites; this model has 8"),
    ("bloom", {"layers": 2}, "trained at 6 sites; this model has 4"),
    ("bloom", {"seed": 1}, "the weights differ"),
    ("llama", {}, "this model has model.layers.0"),
])  # fmt: skip
def test_another_base_is_refused(adapter, tiny, snapshot, architecture, options, words):
    error = refused(tiny(architecture, **options), adapter, snapshot)
    assert error.code == "other-base"
    assert words in str(error)


def test_a_base_without_the_places_is_refused(tiny, tmp_path, snapshot):
    folder = llmad.save(llmad.attach(tiny("llama"), "lora[sites=mlp.gate]"), tmp_path / "a")
    assert refused(tiny("opt"), folder, snapshot).code == "other-base"


def test_another_base_of_the_same_shape_may_be_asked_for(adapter, tiny):
    llmad.load(tiny("bloom", seed=1), adapter, check_base=False)


def rewrite(folder, name, **change):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


@pytest.mark.parametrize(("change", "code"), [
    ({"format": 2}, "other-format"),
    ({"format": None}, "other-format"),
    ({"method": "nothing"}, "unknown-adapter"),
    ({"method": "nothing", "plugin": None}, "unknown-adapter"),
    ({"method": 7}, "broken-adapter"),
    ({"options": {"r": 0}}, "bad-option"),
    ({"options": {"new": 1}}, "bad-option"),
    ({"options": None}, "broken-adapter"),
    ({"sites": "here"}, "broken-adapter"),
    ({"sites": ["here"]}, "broken-adapter"),
    ({"sites": [{}]}, "other-base"),
    ({"sites": []}, "other-base"),
    ({"base": None}, "broken-adapter"),
    ({"base": {}}, "other-base"),
    ({"plugin": {"distribution": "other"}}, "unknown-adapter"),
    ({"quantization": ["nf4"]}, "broken-adapter"),
])  # fmt: skip
def test_a_record_that_cannot_be_right_is_refused(adapter, tiny, snapshot, change, code):
    rewrite(adapter, "llmad.json", **change)
    assert refused(tiny("bloom"), adapter, snapshot).code == code


def test_the_plugin_that_is_missing_is_named(adapter, tiny, snapshot):
    rewrite(adapter, "llmad.json", method="fancy", plugin={"distribution": "llmad-fancy", "version": "2.0"})
    assert "written with llmad-fancy 2.0" in str(refused(tiny("bloom"), adapter, snapshot))


@pytest.mark.parametrize(("file", "content"), [
    ("llmad.json", b"{"), ("llmad.json", b"[]"), ("llmad.json", b"\xff"), ("adapter_model.safetensors", b"")
])  # fmt: skip
def test_a_broken_file_is_refused(adapter, tiny, snapshot, file, content):
    (adapter / file).write_bytes(content)
    error = refused(tiny("bloom"), adapter, snapshot)
    assert error.code == "broken-adapter"
    assert file in str(error)


def test_truncated_tensors_are_refused(adapter, tiny, snapshot):
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert refused(tiny("bloom"), adapter, snapshot).code == "broken-adapter"


@pytest.mark.parametrize(("file", "code"), [
    ("adapter_model.safetensors", "broken-adapter"), ("adapter_config.json", "no-adapter")
])  # fmt: skip
def test_a_missing_file_is_refused(adapter, tiny, snapshot, file, code):
    (adapter / file).unlink()
    assert refused(tiny("bloom"), adapter, snapshot).code == code


@pytest.mark.parametrize("spec", SPECS[1:4])
def test_a_directory_without_its_record_is_no_peft_adapter(tiny, tmp_path, snapshot, spec):
    folder = llmad.save(llmad.attach(tiny("llama"), spec), tmp_path / "a")
    (folder / "llmad.json").unlink()
    assert refused(tiny("llama"), folder, snapshot).code == "foreign-adapter"


def test_no_directory_is_refused(tiny, tmp_path, snapshot):
    assert refused(tiny("llama"), tmp_path / "nowhere", snapshot).code == "no-adapter"


def test_a_wrong_name_is_a_usage_error(adapter, tiny):
    model = llmad.load(tiny("bloom"), adapter)
    with pytest.raises(UsageError) as caught:
        llmad.load(model, adapter)
    assert caught.value.code == "name-taken"


def test_a_place_that_cannot_be_written_is_a_storage_error(llama, tmp_path):
    (tmp_path / "file").write_text("")
    llmad.attach(llama, "lora")
    with pytest.raises(StorageError) as caught:
        llmad.save(llama, tmp_path / "file")
    assert caught.value.code == "cannot-write"
    assert caught.value.exit_code == 6


def test_a_full_disk_is_a_storage_error_and_leaves_the_old_adapter(adapter, tiny, monkeypatch, tmp_path):
    def full(*arguments, **options):
        raise SafetensorError("No space left on device (os error 28)")

    model = llmad.load(tiny("bloom"), adapter)
    shutil.copytree(adapter, tmp_path / "copy")
    monkeypatch.setattr("llmad.adapter_copy.save_file", full)
    with pytest.raises(StorageError, match="No space left"):
        llmad.save(model, adapter)
    for path in (tmp_path / "copy").iterdir():
        assert (adapter / path.name).read_bytes() == path.read_bytes()
    assert len(list(adapter.iterdir())) == 3


class Shared(AdapterSpec):
    """One matrix for all sites."""

    name = "shared"
    sites: Sites = Sites("attn.q")

    def build(self, site):
        layer = Layer()
        layer.weight = ONE
        return layer


class Layer(AdapterModule):
    def forward(self, base, x):
        return base(x) * self.weight


ONE = torch.nn.Parameter(torch.ones(1))


def test_a_parameter_that_sites_share_is_saved_once_and_loaded_for_all(llama, tmp_path):
    llmad.attach(llama, Shared())
    assert len(list(llmad.parameters(llama))) == 1
    folder = llmad.save(llama, tmp_path / "shared")
    assert len(load_file(folder / "adapter_model.safetensors")) == 1


@pytest.mark.parametrize("method", ["lora", "dora", "series[sites=mlp]"])
@pytest.mark.parametrize(("there", "here"), [(None, "nf4"), ("nf4", None), ("int8", "nf4")])
def test_another_quantization_of_the_base_is_told_and_no_error(tiny, quantised, tmp_path, method, there, here):
    def base(how):
        return quantised("llama", how) if how else tiny("llama")

    folder = llmad.save(llmad.attach(base(there), method), tmp_path / "a")
    model = base(here)
    with pytest.warns(llmad.LlmadWarning) as told:
        llmad.load(model, folder)
    (warning,) = told
    words = {None: "not quantised", "int8": r"quantised as int8[threshold=6.0]",
             "nf4": "quantised as nf4[double_quant=true,compute_dtype=float32]"}  # fmt: skip
    wanted = f"{folder}: it was trained on a base {words[there]}; this one is {words[here]}"
    assert (str(warning.message), warning.filename) == (wanted, __file__)


@pytest.mark.parametrize("how", ["int8", "nf4"])
def test_another_base_is_refused_though_it_is_quantised(tiny, quantised, tmp_path, how):
    plain = llmad.save(llmad.attach(tiny("llama"), "lora"), tmp_path / "plain")
    folder = llmad.save(llmad.attach(quantised("llama", how), "lora"), tmp_path / "quantised")
    pairs = [(quantised("llama", how, seed=1), plain), (tiny("llama", seed=1), folder)]
    for model, there in [*pairs, (quantised("llama", how, seed=1), folder)]:
        with pytest.raises(ModelError, match="the weights differ") as caught:
            llmad.load(model, there)
        assert caught.value.code == "other-base"
        assert not state(model).adapters


@pytest.mark.parametrize("how", [None, "int8", "nf4"])
def test_the_quantization_is_recorded(tiny, quantised, tmp_path, how):
    model = quantised("llama", how) if how else tiny("llama")
    about = json.loads((llmad.save(llmad.attach(model, "lora"), tmp_path / "a") / "llmad.json").read_text())
    assert about["quantization"] == quantization(model)


def test_a_fingerprint_of_another_form_is_refused(adapter, tiny, snapshot):
    rewrite(adapter, "llmad.json", base={"model_type": "bloom", "fingerprint": "0" * 64})
    assert "its fingerprint cannot be read" in str(refused(tiny("bloom"), adapter, snapshot))
