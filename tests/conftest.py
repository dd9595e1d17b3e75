"""Tiny random models, and the few questions that many tests ask of them."""

import gc
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its notices about absent image libraries
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import settings
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from llmad.quantization import prepare
from llmad.registry import parse_quantizer, registry

torch.set_num_threads(1)
settings.register_profile("llmad", deadline=None, max_examples=50)
settings.load_profile("llmad")

VOCABULARY = 97
ARCHITECTURES = ("llama", "bloom", "opt", "opt-350m", "gptj")
_IDS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_DROPS = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def _grouped(layers: int) -> dict[str, int]:
    """Sizes of the LLaMA kind, with two query heads to a head of k and v."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": layers}
    return {**sizes, "num_attention_heads": 4, "num_key_value_heads": 2}


def _llama(layers: int) -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**_IDS, **_grouped(layers)))


def _qwen2(layers: int) -> nn.Module:
    return Qwen2ForCausalLM(Qwen2Config(**_IDS, **_grouped(layers)))


def _phi3(layers: int) -> nn.Module:
    return Phi3ForCausalLM(Phi3Config(**_IDS, **_grouped(layers)))


def _bloom(layers: int) -> nn.Module:
    return BloomForCausalLM(BloomConfig(**_IDS, hidden_size=32, n_layer=layers, n_head=4))


def _opt(layers: int, **more: Any) -> nn.Module:
    sizes = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": layers, "num_attention_heads": 4}
    sizes |= {"word_embed_proj_dim": 32, "max_position_embeddings": 128, "dropout": 0.0}
    return OPTForCausalLM(OPTConfig(**_IDS, **(sizes | more)))


def _opt_350m(layers: int) -> nn.Module:
    """The one OPT whose embedding is narrower than its blocks, and whose norms come after."""
    return _opt(layers, word_embed_proj_dim=16, do_layer_norm_before=False)


def _gptj(layers: int) -> nn.Module:
    sizes = {"n_embd": 32, "n_layer": layers, "n_head": 4, "rotary_dim": 4, "n_positions": 128}
    return GPTJForCausalLM(GPTJConfig(**_IDS, **sizes, **_DROPS, tie_word_embeddings=False))


def _gpt2(layers: int) -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(**_IDS, **_DROPS, n_embd=32, n_layer=layers, n_head=4, n_positions=128))


def _gpt_neox(layers: int) -> nn.Module:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers, "num_attention_heads": 4}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**_IDS, **sizes))


_MAKERS: dict[str, Callable[[int], nn.Module]] = {
    "llama": _llama,
    "bloom": _bloom,
    "opt": _opt,
    "opt-350m": _opt_350m,
    "gptj": _gptj,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "phi3": _phi3,
    "qwen2": _qwen2,
}


def _tiny(architecture: str, layers: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = _MAKERS[architecture](layers).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # fresh biases are zero and fresh norms are one: hide nothing behind them
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def tiny() -> Callable[..., nn.Module]:
    """Make a tiny model: `tiny("llama", layers=3, seed=0)`; the same weights for the same arguments."""
    return _tiny


@pytest.fixture
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., nn.Module]:
    """Make a tiny model whose linear maps are quantised as they are loaded: `quantised("llama", "nf4", seed=0)`."""

    def quantised(architecture: str, quantizer: str, **which: int) -> nn.Module:
        folder = tmp_path_factory.mktemp("plain")
        cast(Any, _tiny(architecture, **which)).save_pretrained(folder)
        how = {"quantization_config": parse_quantizer(quantizer).config("float32"), "device_map": {"": "cpu"}}
        model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, **how)
        prepare(model)
        return model.eval()

    return quantised


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    """Every architecture in turn."""
    return str(request.param)


@pytest.fixture
def model(architecture: str) -> nn.Module:
    """A tiny model of every architecture in turn."""
    return _tiny(architecture)


@pytest.fixture
def llama() -> nn.Module:
    """The one model of tests that do not depend on the architecture."""
    return _tiny("llama")


@pytest.fixture
def ids() -> torch.Tensor:
    """Two rows of token ids, (2, 7), without special ones."""
    return torch.randint(3, VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(7))


@pytest.fixture
def logits(ids: torch.Tensor) -> Callable[[nn.Module], torch.Tensor]:
    """The logits of a model for `ids`."""

    @torch.no_grad()
    def logits(model: nn.Module) -> torch.Tensor:
        return model(ids).logits.clone()

    return logits


@pytest.fixture
def heads(ids: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module], dict[str, torch.Tensor]]:
    """The q, k and v, (2, 7, width) each, that the first block's attention computes with: the model's own parting.

    Where a model rotates its heads they are rotated, which leaves the first position as it was.
    """

    @torch.no_grad()
    def heads(model: nn.Module) -> dict[str, torch.Tensor]:
        seen: list[dict[str, torch.Tensor]] = []
        code = sys.modules[type(model).__module__]
        attend = code.eager_attention_forward

        def look(module: nn.Module, *states: torch.Tensor, **options: Any) -> Any:
            seen.append({role: state.transpose(1, 2).flatten(2) for role, state in zip("qkv", states, strict=False)})
            return attend(module, *states, **options)

        model.set_attn_implementation("eager")
        with monkeypatch.context() as patched:
            patched.setattr(code, "eager_attention_forward", look)
            model(ids)
        return seen[0]

    return heads


@pytest.fixture
def perturb() -> Callable[..., None]:
    """Give every parameter of an adapter a random value, so that it does something."""

    def perturb(model: nn.Module, name: str = "default", size: float = 0.1, seed: int = 11) -> None:
        import llmad

        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for _, parameter in llmad.parameters(model, name):
                parameter.add_(size * torch.randn(parameter.shape, generator=generator).to(parameter))

    return perturb


@pytest.fixture
def snapshot() -> Callable[[nn.Module], Any]:
    """Everything of a model that a refused or undone change must leave as it was, in a form that can be compared."""

    def snapshot(model: nn.Module) -> Any:
        modules = [(name, id(module), type(module), sorted(vars(module))) for name, module in model.named_modules()]
        flags = [(name, parameter.requires_grad) for name, parameter in model.named_parameters()]
        state = model.state_dict(keep_vars=True).items()
        bits = [(name, id(tensor), tensor.detach().numpy().tobytes()) for name, tensor in state]
        return modules, flags, bits

    return snapshot


@pytest.fixture
def python() -> Callable[..., str]:
    """Run code in a fresh interpreter and return what it prints."""

    def python(code: str, *arguments: str, **environment: str) -> str:
        command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return python


@pytest.fixture(scope="session")
def warm() -> Iterator[Path]:
    """A folder with an `llmad` that starts in milliseconds, for tests in which it is the command that counts."""
    here = Path(__file__).parent / "warm"
    with TemporaryDirectory(prefix="llmad-") as folder:
        command = [sys.executable, "-P", str(here / "server.py"), f"{folder}/socket"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as server:
            assert server.stdout
            assert server.stdout.readline() == b"ready\n"
            words = shlex.join([sys.executable, "-I", "-S", str(here / "client.py"), f"{folder}/socket"])
            Path(folder, "llmad").write_text(f'#!/bin/sh\nexec {words} "$@"\n')
            Path(folder, "llmad").chmod(0o700)
            yield Path(folder)


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_disks() -> Iterator[None]:
    """Let no test wait until a disk has its files: no test can cut the power. What is synced, and when, is tested."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", os.fstat)  # a handle that is none is refused as before
        yield


@pytest.fixture
def fresh_registry() -> Iterator[None]:
    """Forget what is installed before and after the test."""
    registry.cache_clear()
    yield
    registry.cache_clear()


@pytest.fixture
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parents[1]


def pytest_collection_finish() -> None:
    """Let garbage be looked for among what the tests make, and not among all that they import."""
    gc.collect()
    gc.freeze()
