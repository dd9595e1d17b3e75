"""What every method promises on every family of models, cell by cell; `docs/generate.py` makes a page of it.

A cell that cannot be is in `REFUSED` with the words of the refusal, and is tested to be refused in these words.
"""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import llmad

FAMILIES = {
    "llama": "Llama", "qwen2": "Qwen2", "gpt2": "GPT-2", "gptj": "GPT-J", "bloom": "BLOOM", "opt": "OPT",
    "gpt_neox": "GPT-NeoX", "phi3": "Phi-3",
}  # fmt: skip
METHODS = {
    "lora": "lora", "dora": "dora", "ia3": "ia3", "series": "series", "parallel": "parallel",
    "compacter": "compacter[bottleneck=8]", "invertible": "invertible", "loreft": "loreft",
    "prompt": "prompt[num_virtual_tokens=4]", "p-tuning": "p-tuning[num_virtual_tokens=4]",
    "prefix": "prefix[num_virtual_tokens=4]",
    "prefix, plain": "prefix[num_virtual_tokens=4,prefix_projection=false]",
}  # fmt: skip
NO_IDENTITY = "the virtual tokens are attended to from the start"
LOST = "key/value pairs before the text are lost where gradient checkpointing drops the cache"
REFUSED = {
    ("identity", "prompt"): NO_IDENTITY,
    ("identity", "p-tuning"): NO_IDENTITY,
    ("identity", "prefix"): NO_IDENTITY,
    ("identity", "prefix, plain"): NO_IDENTITY,
    ("checkpointing", "prefix"): LOST,
    ("checkpointing", "prefix, plain"): LOST,
}
PROMISES = {
    "identity": "a fresh adapter changes no bit",
    "decoding": "prefill and cached decoding give the logits of one full forward",
    "generate": "text generated with and without the cache is the same",
    "padding": "padding on the left changes nothing",
    "rows": "rows of one batch with different adapters or none give what each gives alone, in beam search too",
    "checkpointing": "gradient checkpointing gives equal gradients",
    "bf16": "a bfloat16 base trains, with adapter weights in float32 and no copy of activations in it",
    "switching": "switching adapters reproduces each; disabled is the base, also after an exception",
    "files": "two adapters are saved and loaded apart, whatever their names",
    "detach": "detaching restores the base bit for bit",
}


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.fixture(params=FAMILIES)
def base(request, tiny):
    return tiny(request.param, layers=2)


@pytest.fixture
def attach(base, method, perturb):
    """Attach the method, with weights that do something, under a name."""

    def attach(name="default", seed=1, model=base):
        llmad.attach(model, METHODS[method], name)
        perturb(model, name, seed=seed)
        return model

    return attach


@pytest.fixture
def possible(method):
    """Skip a cell that has no meaning; the refused ones are tested to be refused."""

    def possible(promise):
        if REFUSED.get((promise, method)) == NO_IDENTITY:
            pytest.skip(NO_IDENTITY)
        return (promise, method) not in REFUSED

    return possible


def close(found, wanted, tolerance=1e-5):
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)


def write(model, ids, mask=None, **how):
    """Greedy text with the logits that chose it, (rows, steps, vocabulary)."""
    how = {"do_sample": False, "min_new_tokens": 5, "max_new_tokens": 5, "pad_token_id": 0, **how}
    mask = torch.ones_like(ids) if mask is None else mask
    done = model.generate(ids, attention_mask=mask, return_dict_in_generate=True, output_logits=True, **how)
    return done.sequences[:, ids.shape[1] :], torch.stack(done.logits, dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_identity(base, method, possible, logits, dtype):
    possible("identity")
    before = logits(base.to(dtype))
    assert torch.equal(logits(llmad.attach(base, METHODS[method])), before)


@torch.no_grad()
def test_decoding(attach, ids):
    model = attach()
    whole = model(ids).logits
    start = model(ids[:, :4], use_cache=True)
    found, cache = [start.logits], start.past_key_values
    for place in range(4, ids.shape[1]):
        step = model(ids[:, place : place + 1], past_key_values=cache, use_cache=True)
        found.append(step.logits)
        cache = step.past_key_values
    close(torch.cat(found, dim=1), whole)


def test_generate(attach, ids):
    model = attach()
    with_cache, without = write(model, ids), write(model, ids, use_cache=False)
    assert torch.equal(with_cache[0], without[0])
    close(with_cache[1], without[1])


def test_padding(attach, ids):
    model = attach()
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids[:1, 3:]], dim=1)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    together = write(model, torch.cat([padded, ids[1:]]), mask)
    for row, alone in enumerate((write(model, ids[:1, 3:]), write(model, ids[1:]))):
        assert torch.equal(together[0][row], alone[0][0])
        close(together[1][row], alone[1][0])


@pytest.mark.parametrize("beams", [1, 3])
def test_rows(attach, ids, beams):
    model = attach("b", 2, attach("a", 1))
    ids = torch.cat([ids, ids[:1]])
    alone = []
    for name in ("a", None, "b"):
        llmad.activate(model, *([name] if name else []))
        alone.append((model(ids).logits, write(model, ids, num_beams=beams)[0]))
    with llmad.per_row(model, ["a", None, "b"]):
        found, text = model(ids).logits, write(model, ids, num_beams=beams)[0]
    for row, (wanted, wanted_text) in enumerate(alone):
        close(found[row], wanted[row])
        assert torch.equal(text[row], wanted_text[row])


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
def test_checkpointing(attach, ids, method, possible):
    model = attach().train()

    def gradients():
        model.zero_grad()
        model(ids, labels=ids, use_cache=False).loss.backward()
        return {name: parameter.grad.clone() for name, parameter in llmad.parameters(model)}

    plain = gradients()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    if not possible("checkpointing"):
        with pytest.raises(llmad.ModelError, match=REFUSED["checkpointing", method]):
            gradients()
        return
    for name, gradient in gradients().items():
        close(gradient, plain[name], 1e-6)


def test_bf16(base, method, ids):
    llmad.attach(base.to(torch.bfloat16), METHODS[method]).train()
    own = dict(llmad.parameters(base))
    adam = torch.optim.AdamW(own.values(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = base(ids, labels=ids).loss
        loss.backward()
        adam.step()
        adam.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert {parameter.dtype for parameter in own.values()} == {torch.float32}
    assert all(parameter.isfinite().all() for parameter in own.values())


def test_switching(base, attach, logits):
    before = logits(base)
    model = attach("a", 1)
    first = logits(model)
    llmad.activate(attach("b", 2), "b")
    second = logits(model)
    assert not torch.allclose(first, second, atol=1e-3)
    for name, wanted in (("a", first), ("b", second), ("a", first)):
        assert torch.equal(logits(llmad.activate(model, name)), wanted)
    with llmad.disabled(model):
        assert torch.equal(logits(model), before)
    with pytest.raises(KeyError), llmad.disabled(model):
        raise KeyError
    assert torch.equal(logits(model), first)


def test_files(base, attach, logits, tmp_path):
    plain = copy.deepcopy(base)
    names = ("self_attn", "self_attn2")
    for seed, name in enumerate(names):
        attach(name, seed)
    found = {name: logits(llmad.activate(base, name)) for name in names}
    for name in names:
        llmad.save(base, tmp_path / name, name)
    for name in reversed(names):
        llmad.load(plain, tmp_path / name, f"{name}-again")
    for name in names:
        assert torch.equal(logits(llmad.activate(plain, f"{name}-again")), found[name])


def test_detach(base, attach, logits, snapshot):
    known, before = snapshot(base), logits(base)
    llmad.detach(attach("b", 2, attach("a", 1)), "a")
    llmad.detach(base, "b")
    assert snapshot(base) == known
    assert torch.equal(logits(base), before)


class Wide(TorchDispatchMode):
    """Counts the float32 tensors of a batch's activations that operations make."""

    def __init__(self, rows):
        super().__init__()
        self.rows, self.count = rows, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.dim() > 2 and tensor.dtype == torch.float32:
                self.count += tensor.shape[0] == self.rows
        return out


def test_no_activation_is_copied_to_float32(base, method):
    """What the base widens itself, such as the inside of a norm, is counted with and without the adapter."""
    ids, counts = torch.randint(3, 90, (5, 7)), []
    llmad.attach(base.to(torch.bfloat16), METHODS[method]).train()
    base(ids).logits.float().mean().backward()  # the first call makes what later ones find
    for names in ((), ("default",)):
        llmad.activate(base, *names)
        with Wide(rows=5) as wide, torch.no_grad():
            base(ids)
        counts.append(wide.count)
    assert counts[0] == counts[1]
