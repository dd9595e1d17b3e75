"""bitsandbytes' quantizers, computing on the CPU: what they say of a weight, and every method on a base of theirs."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

import llmad
from llmad.quantization import owners
from llmad.registry import parse_quantizer

QUANTIZERS = ["int8", "nf4"]
FAMILIES = ["llama", "gpt2", "bloom"]  # plain linears; transposed and fused ones; fused head by head
METHODS = [
    "lora", "dora", "ia3", "series", "parallel", "compacter[bottleneck=8]", "invertible", "loreft",
    "prompt[num_virtual_tokens=4]", "p-tuning[num_virtual_tokens=4]", "prefix[num_virtual_tokens=4]",
]  # fmt: skip


def losses(model, ids, steps=8):
    """The loss before each step, and after the last."""
    adam = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    for _ in range(steps):
        loss = model(ids, labels=ids).loss
        loss.backward()
        adam.step()
        adam.zero_grad()
        yield loss.item()
    yield model.eval()(ids, labels=ids).loss.item()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantizer", [*QUANTIZERS, "fp4"])
def test_every_linear_of_the_blocks_is_quantised_and_nothing_else(quantised, quantizer, family):
    model = quantised(family, quantizer)
    sites = [site for site in llmad.sites(model) if site.linear and site.role != "head"]
    assert owners(model) == {site.path: type(parse_quantizer(quantizer)) for site in sites}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("quantizer", "error"), [("int8", 0.01), ("nf4", 0.2), ("nf4[double_quant=false]", 0.2)])
def test_a_dequantised_weight_is_near_the_plain_one(quantised, tiny, quantizer, family, error):
    plain, model = tiny(family), quantised(family, quantizer)
    for path, own in owners(model).items():
        wanted = plain.get_submodule(path).weight
        wanted = wanted.T if hasattr(plain.get_submodule(path), "nf") else wanted
        found = own.dequantize(model.get_submodule(path))
        assert found.shape == wanted.shape == own.shape(model.get_submodule(path))
        assert found.dtype == torch.float32
        assert (found - wanted).abs().max() <= error * wanted.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("quantizer", "error"), [("int8", 0.03), ("nf4", 1e-5), ("fp4", 1e-5)])
def test_a_dequantised_weight_is_what_the_place_computes_with(quantised, quantizer, family, error):
    model = quantised(family, quantizer)
    for path, own in owners(model).items():
        place = model.get_submodule(path)
        before = own.dequantize(place)
        x = torch.randn(3, place.in_features)
        wanted = place(x)
        assert torch.equal(own.dequantize(place), before)  # the first call moves what is quantised about
        found = F.linear(x, before, place.bias)
        assert (found - wanted).abs().max() <= error * wanted.abs().max()


@pytest.mark.parametrize("text", [
    "int8", "int8[threshold=4.0]", "nf4[compute_dtype=float32]", "nf4[double_quant=false,compute_dtype=float16]",
    "fp4[compute_dtype=bfloat16]",
])  # fmt: skip
def test_the_config_says_which_quantizer_it_is(text):
    quantizer = parse_quantizer(text)
    config = quantizer.config("auto").to_dict()
    readers = [parse_quantizer(name).of(config) for name in ("int8", "nf4", "fp4")]
    assert [reader for reader in readers if reader] == [quantizer]


@pytest.mark.parametrize(("text", "dtype", "wanted"), [
    ("nf4", "auto", "bfloat16"), ("nf4", "float32", "float32"), ("nf4[compute_dtype=float16]", "float32", "float16"),
])  # fmt: skip
def test_four_bits_compute_in_the_dtype_of_the_run(text, dtype, wanted):
    assert parse_quantizer(text).config(dtype).bnb_4bit_compute_dtype == getattr(torch, wanted)


def test_another_librarys_config_is_not_read():
    assert not any(parse_quantizer(name).of({"quant_method": "gptq", "bits": 4}) for name in ("int8", "nf4", "fp4"))


@pytest.mark.parametrize(
    "text", ["nf4[double_quant=maybe]", "nf4[compute_dtype=int8]", "int8[threshold=-1]", "int8[r=1]"]
)
def test_wrong_options_are_refused(text):
    with pytest.raises(llmad.UsageError) as caught:
        parse_quantizer(text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_and_comes_back_from_its_files(quantised, ids, logits, tmp_path, method, quantizer, family):
    model = quantised(family, quantizer, layers=2)
    before = {path: own.dequantize(model.get_submodule(path)) for path, own in owners(model).items()}
    plain = logits(model)
    llmad.attach(model, method)
    if not method.startswith(("prompt", "p-tuning", "prefix")):
        assert torch.equal(logits(model), plain)
    found = list(losses(model, ids))
    assert found[-1] < found[0]
    folder = llmad.save(model, tmp_path / "adapter")
    again = llmad.load(quantised(family, quantizer, layers=2), folder)
    assert torch.equal(logits(again), logits(model))
    llmad.detach(model)
    assert torch.equal(logits(model), plain)
    assert all(torch.equal(owners(model)[path].dequantize(model.get_submodule(path)), before[path]) for path in before)


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_fusion_learns_from_adapters_of_a_quantised_base(quantised, perturb, ids, quantizer):
    model = quantised("llama", quantizer)
    for seed, name in enumerate("ab"):
        llmad.attach(model, "series", name)
        perturb(model, name, seed=seed)
        for _, parameter in llmad.parameters(model, name):
            parameter.requires_grad_(False)
    llmad.attach(model, "fusion[adapters=a+b]")
    found = list(losses(model, ids))
    assert found[-1] < found[0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_dora_starts_from_the_norms_of_the_dequantised_weight(quantised, quantizer, family):
    model = quantised(family, quantizer)
    llmad.attach(model, "dora[sites=attn.q+mlp.down]")
    for site in llmad.sites(model):
        if site.role in ("attn.q", "mlp.down"):
            place = model.get_submodule(site.path)
            whole = owners(model)[site.path].dequantize(place)
            wanted = (whole[site.rows.index()] if site.rows else whole).norm(dim=1)
            found = place.adapters["default"][site.slot].magnitude
            torch.testing.assert_close(found.detach(), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("double", [True, False])
def test_a_weight_whose_bits_the_processor_has_rearranged_is_read_as_it_computes(double):
    import bitsandbytes
    from bitsandbytes import functional

    place = bitsandbytes.nn.Linear4bit(128, 64, bias=False, quant_type="nf4", compress_statistics=double).to("cpu")
    nf4 = type(parse_quantizer("nf4"))
    before = nf4.dequantize(place)
    bits, state = functional._convert_weight_packed_for_cpu(place.weight.data, place.weight.quant_state)
    place.weight.data = bits.clone()
    found = nf4.dequantize(place)
    torch.testing.assert_close(found, before, atol=1e-3, rtol=1e-2)  # the scales are in bfloat16 now
    assert found.count_nonzero() == before.count_nonzero() > 0
    assert place.weight.quant_state is state
    assert state.packing_format_for_cpu
    assert torch.equal(place.weight.data, bits)
    assert torch.equal(nf4.dequantize(place), found)


def test_layers_that_are_too_small_to_be_rearranged_are_left_as_they_are():
    import bitsandbytes

    sizes = [(128, 64), (96, 64), (128, 48)]
    layers = [bitsandbytes.nn.Linear4bit(*pair, quant_type="nf4") for pair in sizes]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = True
    type(parse_quantizer("nf4")).prepare(torch.nn.Sequential(*layers))
    assert [layer.support_avx512bf16_for_cpu for layer in layers] == [True, False, False]
