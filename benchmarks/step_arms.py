"""The arms of the step benchmarks: one frozen LLaMA with llmad's LoRA, with PEFT's, and with none.

All three start from the same weights and see the same batch; the two adapters have the same values too.
"""

from dataclasses import dataclass
from typing import Any

import peft
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

import llmad

TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
ROLES = "attn.q+attn.k+attn.v+mlp.up+mlp.down"


@dataclass(frozen=True)
class Shape:
    """The size of the base and of a batch."""

    hidden: int = 768
    inner: int = 2048
    layers: int = 6
    vocabulary: int = 4096
    batch: int = 4
    length: int = 256


@dataclass(frozen=True)
class Arm:
    """A model and what a step of it trains; nothing for the frozen one."""

    model: Any
    trained: list[nn.Parameter]
    adam: torch.optim.Optimizer | None

    def forward(self, ids: Tensor) -> Tensor:
        """The loss."""
        loss: Tensor = self.model(input_ids=ids, labels=ids, use_cache=False).loss
        return loss

    def step(self, ids: Tensor) -> float:
        """Forward, backward, optimizer."""
        loss = self.forward(ids)
        loss.backward()
        if self.adam:
            self.adam.step()
            self.adam.zero_grad(set_to_none=True)
        return float(loss.detach())


def arms(shape: Shape, dtype: torch.dtype, dropout: float, rank: int = 8) -> dict[str, Arm]:
    """PEFT, llmad and the frozen floor, checked to compute the same."""
    theirs, ours, frozen = (base(shape, dtype) for _ in range(3))
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, lora_dropout=dropout, target_modules=TARGETS
    )
    theirs = peft.get_peft_model(theirs, config)
    llmad.attach(ours, f"lora[r={rank},alpha={2 * rank},dropout={dropout},sites={ROLES}]")
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.02)
        copy_weights(theirs, ours)
    only_what_the_lowest_adapter_needs(frozen)
    made = {"PEFT": arm(theirs), "llmad": arm(ours), "frozen": Arm(frozen.train(), [], None)}
    check_equal(made["PEFT"], made["llmad"], batch(shape), dtype)
    return made


def base(shape: Shape, dtype: torch.dtype) -> Any:
    """A frozen LLaMA of that shape; the same weights every time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // 64,
        vocab_size=shape.vocabulary,
    )
    return LlamaForCausalLM(config).to(dtype).requires_grad_(False)


def batch(shape: Shape) -> Tensor:
    """Token ids (batch, length)."""
    return torch.randint(3, shape.vocabulary, (shape.batch, shape.length), generator=torch.Generator().manual_seed(1))


def arm(model: Any) -> Arm:
    """A model that trains what wants a gradient."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return Arm(model.train(), trained, torch.optim.AdamW(trained, lr=1e-4, fused=True))


def copy_weights(theirs: Any, ours: Any) -> None:
    """Give llmad's adapter the values of PEFT's."""
    found = dict(theirs.named_parameters())
    for name, parameter in llmad.parameters(ours):
        path, _, own = name.partition(":")
        matrix = {"down.weight": "lora_A", "up.weight": "lora_B"}[own]
        parameter.copy_(found[f"base_model.model.{path}.{matrix}.default.weight"])


def only_what_the_lowest_adapter_needs(model: Any) -> None:
    """A gradient begins at the outputs of the lowest adapted places, as it does with an adapter there."""
    attention = model.model.layers[0].self_attn

    def begin(_: nn.Module, __: Any, out: Tensor) -> Tensor:
        return out.requires_grad_()

    for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
        linear.register_forward_hook(begin)


def check_equal(theirs: Arm, ours: Arm, ids: Tensor, dtype: torch.dtype) -> None:
    """Without dropout: the same loss, and the same gradients, none of them zero."""
    losses, norms = [], []
    for one in (theirs, ours):
        one.model.eval()
        loss = one.forward(ids)
        loss.backward()
        losses.append(float(loss.detach()))
        norms.append(torch.stack([parameter.grad.norm() for parameter in one.trained if parameter.grad is not None]))
        one.adam.zero_grad(set_to_none=True) if one.adam else None
        one.model.train()
    near = 1e-4 if dtype == torch.float32 else 5e-2
    assert abs(losses[0] - losses[1]) < near, losses
    assert len(norms[0]) == len(norms[1]) == len(theirs.trained) == len(ours.trained)
    assert all(bool((norm > 0).all()) for norm in norms), "a gradient is zero"
    torch.testing.assert_close(norms[0].sort().values, norms[1].sort().values, rtol=near, atol=1e-6)
