"""The look-alikes: every model type that has the LLaMA layout by the rules of a family has it, and takes adapters."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import llmad
from llmad.registry import registry
from llmad_plugins.backbones.llama import LLAMA

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
NO_GATE = {"arcee", "apertus", "nemotron"}
LOOK_ALIKES = [kind for rules in registry().backbones() if rules.parts == LLAMA.parts for kind in rules.model_types]


@pytest.fixture(params=LOOK_ALIKES)
def look_alike(request: pytest.FixtureRequest) -> Any:
    try:
        config = AutoConfig.for_model(request.param, **SMALL)
    except ValueError:
        pytest.skip(f"this transformers has no {request.param}")
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def test_every_role_is_there_in_every_layer(look_alike: Any) -> None:
    kind = look_alike.config.model_type
    wanted = {"block", *LLAMA.parts} - ({"mlp.gate"} if kind in NO_GATE else set())
    for layer in range(SMALL["num_hidden_layers"]):
        assert {site.role for site in llmad.sites(look_alike) if site.layer == layer} == wanted


def test_a_fresh_adapter_everywhere_changes_nothing_and_a_changed_one_does(look_alike: Any) -> None:
    ids = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(0))
    before = look_alike(input_ids=ids).logits
    llmad.attach(look_alike, "parallel[bottleneck=4,sites=linear+attn+mlp+block]")
    assert torch.equal(look_alike(input_ids=ids).logits, before)
    with torch.no_grad():
        for _, weight in llmad.parameters(look_alike):
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    assert not torch.allclose(look_alike(input_ids=ids).logits, before)
    llmad.detach(look_alike)
    assert torch.equal(look_alike(input_ids=ids).logits, before)


def test_virtual_tokens_and_the_cache_agree(look_alike: Any) -> None:
    llmad.attach(look_alike, "prompt[num_virtual_tokens=3]")
    ids = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"input_ids": ids, "max_new_tokens": 4, "do_sample": False}
    options["attention_mask"] = torch.ones_like(ids)
    assert torch.equal(look_alike.generate(**options), look_alike.generate(**options, use_cache=False))
