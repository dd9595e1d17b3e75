"""What every backbone plugin promises: its sizes can be planned without weights, and its rules hold for them."""

from pathlib import Path
from runpy import run_path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import llmad
from llmad.described import described
from llmad.registry import registry
from llmad.resolver import resolved

ZOO = run_path(str(Path(__file__).parents[1] / "zoo.py"))
SHAPES = [(rules.name, size) for rules in registry().backbones() for size in rules.shapes]
# As published with the weights, by the name that the weights have on the hub; a matrix that is embedding and head
# counts once, though some are stored twice. Of Gemma 3 the text model: what is published less the vision tower's
# 416,866,032 and the projector's 1,152 x (width + 1).
EXACT = {
    "huggyllama/llama": {
        "llama-7b": 6_738_415_616, "llama-13b": 13_015_864_320, "llama-30b": 32_528_943_616,
        "llama-65b": 65_285_660_672,
    },
    "meta-llama/Llama": {
        "llama-2-7b": 6_738_415_616, "llama-2-13b": 13_015_864_320, "llama-2-70b": 68_976_648_192,
        "llama-3-8b": 8_030_261_248, "llama-3-70b": 70_553_706_496, "llama-3.1-8b": 8_030_261_248,
        "llama-3.1-70b": 70_553_706_496, "llama-3.1-405b": 405_853_388_800, "llama-3.2-1b": 1_235_814_400,
        "llama-3.2-3b": 3_212_749_824,
    },
    "TinyLlama/TinyLlama": {"tinyllama-1.1b": 1_100_048_384},
    "HuggingFaceTB/SmolLM": {
        "smollm2-135m": 134_515_008, "smollm2-360m": 361_821_120, "smollm2-1.7b": 1_711_376_384,
        "smollm3-3b": 3_075_098_624,
    },
    "mistralai": {
        "mistral-7b": 7_241_732_096, "mistral-7b-v0.3": 7_248_023_552, "ministral-8b": 8_019_808_256,
        "mistral-nemo-12b": 12_247_782_400, "codestral-22b": 22_247_282_688, "mistral-small-24b": 23_572_403_200,
        "mistral-large-123b": 122_610_069_504, "mixtral-8x7b": 46_702_792_704, "mixtral-8x22b": 140_620_634_112,
    },
    "Qwen/Qwen": {
        "qwen2.5-0.5b": 494_032_768, "qwen2.5-1.5b": 1_543_714_304, "qwen2.5-3b": 3_085_938_688,
        "qwen2.5-7b": 7_615_616_512, "qwen2.5-14b": 14_770_033_664, "qwen2.5-32b": 32_763_876_352,
        "qwen2.5-72b": 72_706_203_648, "qwen3-0.6b": 596_049_920, "qwen3-1.7b": 1_720_574_976,
        "qwen3-4b": 4_022_468_096, "qwen3-8b": 8_190_735_360, "qwen3-14b": 14_768_307_200,
        "qwen3-32b": 32_762_123_264, "qwen1.5-moe-a2.7b": 14_315_784_192, "qwen3-30b-a3b": 30_532_122_624,
        "qwen3-235b-a22b": 235_093_634_560, "qwen3-coder-480b-a35b": 480_154_875_392,
    },
    "google/gemma": {
        "gemma-2b": 2_506_172_416, "gemma-7b": 8_537_680_896, "gemma-2-2b": 2_614_341_888,
        "gemma-2-9b": 9_241_705_984, "gemma-2-27b": 27_227_128_320, "gemma-3-270m": 268_098_176,
        "gemma-3-1b": 999_885_952, "gemma-3-4b-text": 3_880_263_168, "gemma-3-12b-text": 11_766_034_176,
        "gemma-3-27b-text": 27_009_346_304,
    },
    "allenai/OLMo": {
        "olmo-1b": 1_176_764_416, "olmo-7b": 6_888_095_744, "olmo-2-1b": 1_484_916_736, "olmo-2-7b": 7_298_617_344,
        "olmo-2-13b": 13_716_198_400, "olmo-2-32b": 32_234_279_936, "olmo-3-7b": 7_298_011_136,
        "olmo-3-32b": 32_233_522_176, "olmoe-1b-7b": 6_919_161_856,
    },
    "ibm-granite/granite": {"granite-3.3-2b": 2_533_539_840, "granite-3.3-8b": 8_170_864_640},
    "bigscience/bloom": {
        "bloom-560m": 559_214_592, "bloom-1b1": 1_065_314_304, "bloom-1b7": 1_722_408_960, "bloom-3b": 3_002_557_440,
        "bloom-7b1": 7_069_016_064, "bloom-176b": 176_247_271_424,
    },
    "facebook/opt": {
        "opt-125m": 125_239_296, "opt-350m": 331_196_416, "opt-1.3b": 1_315_758_080, "opt-2.7b": 2_651_596_800,
        "opt-6.7b": 6_658_473_984, "opt-13b": 12_853_473_280, "opt-30b": 29_974_540_288,
    },
    "openai": {
        "gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200,
        "gpt-oss-20b": 20_914_757_184, "gpt-oss-120b": 116_829_156_672,
    },
    "EleutherAI": {
        "gptj-6b": 6_050_882_784, "gpt-neo-125m": 125_198_592, "gpt-neo-1.3b": 1_315_575_808,
        "gpt-neo-2.7b": 2_651_307_520, "pythia-70m": 70_426_624, "pythia-160m": 162_322_944,
        "pythia-410m": 405_334_016, "pythia-1b": 1_011_781_632, "pythia-1.4b": 1_414_647_808,
        "pythia-2.8b": 2_775_208_960, "pythia-6.9b": 6_857_302_016, "pythia-12b": 11_846_072_320,
        "gpt-neox-20b": 20_554_567_680,
    },
    "tiiuae/falcon": {
        "falcon-rw-1b": 1_311_625_216, "falcon-7b": 6_921_720_704, "falcon-40b": 41_303_293_952,
        "falcon-180b": 178_557_088_768,
    },
    "mosaicml/mpt": {"mpt-7b": 6_649_286_656},
    "bigcode": {
        "santacoder": 1_124_886_528, "starcoderbase-1b": 1_137_207_296, "starcoderbase-7b": 7_327_263_232,
        "starcoder": 15_517_456_384, "starcoder2-3b": 3_030_371_328, "starcoder2-7b": 7_173_923_840,
        "starcoder2-15b": 15_957_889_024,
    },
    "Salesforce/codegen": {"codegen-350m": 356_712_448},
    "microsoft/phi": {
        "phi-1": 1_418_270_720, "phi-1.5": 1_418_270_720, "phi-2": 2_779_683_840, "phi-3-mini": 3_821_079_552,
        "phi-3-medium": 13_960_238_080, "phi-3.5-mini": 3_821_079_552, "phi-3.5-moe": 41_873_153_344,
        "phi-4": 14_659_507_200, "phi-4-mini": 3_836_021_760,
    },
    "THUDM/glm": {"glm-4-9b": 9_399_951_360, "glm-4-9b-0414": 9_400_279_040, "glm-4-32b-0414": 32_566_081_536},
    "jetmoe/jetmoe": {"jetmoe-8b": 8_522_237_952},
    "deepseek-ai/DeepSeek": {
        "deepseek-v2-lite": 15_706_484_224, "deepseek-v2": 235_741_434_880, "deepseek-v3": 671_026_404_352,
    },
}  # fmt: skip
# In millions, where no exact number is at hand: within 1 %.
ROUGH = {
    "opt-66b": 65_700, "mpt-30b": 30_000, "starcoderbase-3b": 3_040, "codegen-2b": 2_780, "codegen-6b": 7_070,
    "codegen-16b": 16_030, "persimmon-8b": 9_400, "qwen2-57b-a14b": 57_400,
}  # fmt: skip
PARAMETERS = {size: (count, 0.0) for counts in EXACT.values() for size, count in counts.items()}
PARAMETERS |= {size: (millions * 10**6, 0.01) for size, millions in ROUGH.items()}


def of_config(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def on_meta(backbone, size):
    (rules,) = [rules for rules in registry().backbones() if rules.name == backbone]
    return of_config(AutoConfig.for_model(**rules.shapes[size]))


@pytest.mark.parametrize(("backbone", "size"), SHAPES, ids=[size for _, size in SHAPES])
def test_a_well_known_size_has_its_published_number_of_parameters(backbone, size):
    model = on_meta(backbone, size)
    published, tolerance = PARAMETERS[size]
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(published, tolerance, abs=0)


def test_every_published_number_is_compared():
    assert PARAMETERS.keys() == {size for _, size in SHAPES}


@pytest.mark.parametrize("size", ["llama-7b", "bloom-560m", "gptj-6b", "opt-350m", "falcon-40b", "deepseek-v2-lite"])
def test_an_adapter_can_be_planned_without_weights(size):
    (backbone,) = [backbone for backbone, known in SHAPES if known == size]
    model = llmad.attach(on_meta(backbone, size), "lora[r=8,sites=linear,layers=:2]")
    assert all(parameter.is_meta for _, parameter in llmad.parameters(model))


@pytest.mark.parametrize("size", ["mixtral-8x7b", "qwen1.5-moe-a2.7b", "gpt-oss-20b", "jetmoe-8b"])
def test_adapters_of_experts_can_be_planned_without_weights(size):
    (backbone,) = [backbone for backbone, known in SHAPES if known == size]
    model = llmad.attach(on_meta(backbone, size), "lora[r=8,sites=expert.*,layers=1]")
    assert all(parameter.is_meta for _, parameter in llmad.parameters(model))


def test_no_model_type_is_described_twice():
    kinds = [kind for rules in registry().backbones() for kind in rules.model_types]
    assert len(set(kinds)) == len(kinds)


DESCRIBED = [(rules, kind) for rules in registry().backbones() for kind in rules.model_types if kind in ZOO["TYPES"]]
UNTRACED = {"jetmoe": {f"model.layers.{layer}.self_attention.kv_proj" for layer in (0, 1)}}
SMALL = {"vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 8}
LATENT = {"kv_lora_rank": 8, "intermediate_size": 64, "qk_nope_head_dim": 16, "v_head_dim": 8, "num_key_value_heads": 8}
VARIANTS = {
    "gpt_bigcode, heads that share": ("gpt_bigcode", {**SMALL, "multi_query": True}),
    "gpt_bigcode, head by head": ("gpt_bigcode", {**SMALL, "multi_query": False}),
    "codegen, two heads to a block": ("codegen", {**SMALL, "rotary_dim": 4}),
    "deepseek_v2, plain queries": ("deepseek_v2", {**SMALL, **LATENT, "q_lora_rank": None, "first_k_dense_replace": 2}),
}
FALCONS = {
    "heads that share": {**SMALL, "multi_query": True},
    "head by head": {**SMALL, "multi_query": False, "alibi": True, "parallel_attn": False},
    "in groups": {**SMALL, "new_decoder_architecture": True, "num_kv_heads": 2},
    "in groups of narrow heads": {**SMALL, "new_decoder_architecture": True, "num_kv_heads": 4},
}


def places(layout):
    """What two layouts must agree in."""
    return {
        (site.path, site.role, site.layer, site.in_features, site.out_features, site.rows, site.stack)
        for site in layout.sites
    }


def rules_of(kind):
    (rules,) = [rules for rules in registry().backbones() if kind in rules.model_types]
    return rules


@pytest.mark.parametrize(("rules", "kind"), DESCRIBED, ids=[kind for _, kind in DESCRIBED])
def test_a_description_says_what_the_structure_says(rules, kind):
    model, untraced = ZOO["build"](kind), UNTRACED.get(kind, set())
    said, seen = described(model, rules), resolved(model)
    assert {place for place in places(said) if place[0] not in untraced} == places(seen)
    assert {finding.path for finding in seen.findings if "could not be traced" in finding.why} == untraced
    assert said.blocks == seen.blocks


@pytest.mark.parametrize("variant", VARIANTS)
def test_so_it_does_where_a_family_has_several_layouts(variant):
    kind, sizes = VARIANTS[variant]
    model = of_config(AutoConfig.for_model(kind, **sizes))
    said = described(model, rules_of(kind))
    assert places(said) == places(resolved(model))
    assert {"attn.q", "attn.k", "attn.v"} <= {site.role for site in said.sites if site.layer == 1}


@pytest.mark.parametrize("variant", FALCONS)
def test_the_rows_of_falcon_are_those_that_its_attention_reads(variant):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("falcon", **FALCONS[variant]))
    attention = model.transformer.h[1].self_attention
    rows = {site.role: site.rows.index() for site in llmad.sites(model) if site.layer == 1 and site.rows}
    wide = attention.query_key_value.out_features
    three = attention._split_heads(torch.arange(float(wide)).view(1, 1, wide))
    for role, heads in zip(("attn.q", "attn.k", "attn.v"), three, strict=True):
        assert heads.flatten().unique().tolist() == rows[role]
    assert sorted(row for own in rows.values() for row in own) == list(range(wide))


@torch.no_grad()
@pytest.mark.parametrize(("role", "half"), [("attn.k", 0), ("attn.v", 1)])
def test_the_halves_of_jetmoe_are_keys_and_values(ids, monkeypatch, role, half):
    """Structure cannot tell, as the queries are a mixture's; the attention itself can."""
    model = ZOO["build"]("jetmoe").eval()
    fused = model.get_submodule("model.layers.0.self_attention.kv_proj")
    fused.weight.chunk(2)[1 - half].zero_()
    seen = []
    code = __import__(type(model).__module__, fromlist=["eager_attention_forward"])
    attend = code.eager_attention_forward
    monkeypatch.setattr(
        code, "eager_attention_forward", lambda *args, **more: seen.append(args[2:4]) or attend(*args, **more)
    )
    model.set_attn_implementation("eager")
    model(ids)
    (site,) = [site for site in llmad.sites(model) if site.role == role and site.layer == 0]
    assert site.rows.start == half * site.rows.length
    assert [bool(states.any()) for states in seen[0]] == [role == "attn.k", role == "attn.v"]


GROWN = ("gpt2", "gpt_neox", "phi3", "qwen2")  # the families besides those that every test runs on
grown = pytest.mark.parametrize("architecture", GROWN)


@grown
@pytest.mark.parametrize("role", "qkv")
def test_an_adapter_on_one_of_q_k_v_reaches_that_one_alone(model, heads, perturb, role):
    before = heads(model)
    (site,) = [site for site in llmad.sites(model) if site.layer == 0 and site.role == f"attn.{role}"]
    inputs = []
    model.get_submodule(site.path).register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    llmad.attach(model, f"lora[r=2,sites=attn.{role},layers=0]")
    perturb(model)
    after = heads(model)
    (lora,) = model.get_submodule(site.path).adapters["default"].values()
    wanted = before[role][:, 0] + inputs[0][:, 0] @ lora.delta().T
    torch.testing.assert_close(after[role][:, 0], wanted, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(after[role], before[role], atol=1e-3)
    assert all(torch.equal(after[other], before[other]) for other in before.keys() - {role})


@grown
@pytest.mark.parametrize("spec", ["lora", "series", "parallel", "prompt[num_virtual_tokens=3]"])
def test_it_starts_as_nothing_is_saved_and_loaded_and_comes_off_again(
    model, architecture, tiny, logits, perturb, snapshot, tmp_path, spec
):
    next(model.parameters()).requires_grad_(False)
    known, before = snapshot(model), logits(model)
    llmad.attach(model, spec)
    assert torch.equal(logits(model), before) or spec.startswith("prompt")
    perturb(model)
    adapted = logits(model)
    assert not torch.allclose(adapted, before, atol=1e-3)
    folder = llmad.save(model, tmp_path / "adapter")
    assert torch.equal(logits(llmad.load(tiny(architecture), folder)), adapted)
    assert torch.equal(logits(llmad.detach(model)), before)
    assert snapshot(model) == known


@grown
@pytest.mark.parametrize("spec", ["lora", "lora[sites=linear]", "lora[sites=attn.*@before]", "lora[sites=attn.k]"])
def test_lora_can_be_merged(model, logits, perturb, spec):
    plain = logits(model)
    llmad.attach(model, spec)
    perturb(model)
    adapted = logits(model)
    torch.testing.assert_close(logits(llmad.merge(model)), adapted, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(adapted, plain, atol=1e-3)


@grown
@pytest.mark.parametrize("spec", ["lora[sites=linear]", "series[sites=block]", "prompt[num_virtual_tokens=3]"])
def test_the_cache_changes_nothing(model, ids, perturb, spec):
    llmad.attach(model, spec)
    perturb(model)
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 4, "do_sample": False}
    assert torch.equal(model.generate(ids, **options), model.generate(ids, **options, use_cache=False))
