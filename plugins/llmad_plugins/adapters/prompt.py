"""Prompt tuning: learned virtual tokens in front of every text.

    embeddings = [P; E(tokens)]        P (num_virtual_tokens, width)

Lester et al., 2021 (arXiv 2104.08691), section 2. P starts as the embeddings of tokens drawn at random from the
vocabulary (`init=vocab`, section 3.2), or N(0, 0.02) (`init=paper`), or zero.

The virtual tokens are the module's own affair: it lengthens the mask and the positions, fills the cache on the
first call, leaves it alone on later ones, and takes its rows out of the outputs again.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import PositiveInt

from llmad import AdapterModule, AdapterSpec, ModelError, Site, Sites, UsageError, hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn

Tensors = dict[str, "Tensor"]
_KEY = "prompt_embeddings"


class Prompt(AdapterSpec):
    """Learned virtual tokens before the text (Lester et al., 2021)."""

    name = "prompt"
    fits: ClassVar[tuple[str, ...]] = ("model",)
    learning_rate: ClassVar[float] = 1e-2
    rate_falls_with_width: ClassVar[bool] = False

    sites: Sites = Sites("model")
    num_virtual_tokens: PositiveInt = 20
    init: Literal["vocab", "paper", "zero"] = "vocab"

    def build(self, site: Site) -> AdapterModule:
        """One matrix of virtual tokens."""
        return PromptLayer(self.num_virtual_tokens, site.out_features, self.init)

    def export(self, modules: Sequence[tuple[Site, Tensors]]) -> tuple[dict[str, Any], Tensors]:
        """PEFT's layout: one matrix."""
        ((_, own),) = modules
        count, width = own["tokens"].shape
        config = {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "inference_mode": True}
        sizes = {"num_virtual_tokens": count, "token_dim": width, "num_transformer_submodules": 1}
        return config | sizes, {_KEY: own["tokens"]}

    def restore(self, sites: Sequence[Site], tensors: Tensors) -> dict[Site, Tensors]:
        """Read PEFT's layout."""
        return {site: {"tokens": tensors[_KEY]} if _KEY in tensors else {} for site in sites}

    @classmethod
    def reads_peft(cls, config: Mapping[str, Any]) -> bool:
        """PEFT's prompt tuning."""
        return config.get("peft_type") == "PROMPT_TUNING"

    @classmethod
    def from_peft(cls, config: Mapping[str, Any]) -> "Prompt":
        """Read the `adapter_config.json` of a prompt that PEFT wrote."""
        if config.get("num_transformer_submodules") not in (None, 1):
            raise UsageError("foreign-adapter", "PEFT's prompt for an encoder and a decoder has no place here")
        return cast(Prompt, cls.read({"num_virtual_tokens": config.get("num_virtual_tokens")}))


class PromptLayer(AdapterModule):
    """Puts (num_virtual_tokens, width) learned embeddings before the embeddings of the text."""

    whole_call = True

    def __init__(self, count: int, width: int, init: str) -> None:
        import torch
        from torch import nn

        super().__init__()
        self.init = init
        self.tokens = nn.Parameter(torch.zeros(count, width))
        if init == "paper":
            nn.init.normal_(self.tokens, std=0.02)

    def begin(self) -> None:
        """Start from the embeddings of random tokens of the vocabulary."""
        import torch

        if self.init == "vocab":
            table = _embedding(self.host)
            drawn = torch.randint(table.num_embeddings, (self.tokens.shape[0],))
            with torch.no_grad():
                self.tokens.copy_(table(drawn.to(self.tokens.device)))

    def forward(self, base: Callable[..., Any], rows: "Tensor | None" = None, **call: Any) -> Any:  # noqa: ARG002
        """The stack's output for the text alone, as if the virtual tokens were not there."""
        count, cache, mask = self.tokens.shape[0], call.get("past_key_values"), call.get("attention_mask")
        cached = cache.get_seq_length() if cache is not None else 0
        width = _length(call)
        if getattr(cache, "is_compileable", False):
            raise ModelError("prompt-cache", "prompt has no room in a static cache", "use a dynamic cache")
        _check(mask, width, cached, count)
        if mask is not None:
            call["attention_mask"] = _pad_left(mask, count, 1)
        if cached:  # the virtual tokens are in the cache since the first call
            if call.get("position_ids") is not None:
                call["position_ids"] = call["position_ids"] + count
            return _without(base(**call), count, rows=0)
        text = call.pop("inputs_embeds", None)
        if text is None:
            text = _embedding(self.host)(call["input_ids"])
        call["input_ids"] = None
        call["inputs_embeds"] = self._before(text)
        if (positions := self._positions(call.get("position_ids"), mask)) is not None:
            call["position_ids"] = positions
        return _without(base(**call), count, rows=count)

    def _before(self, text: "Tensor") -> "Tensor":
        import torch

        tokens = self.tokens.to(text.dtype).expand(text.shape[0], -1, -1)
        return torch.cat((tokens, text), dim=1)

    def _positions(self, positions: "Tensor | None", mask: "Tensor | None") -> "Tensor | None":
        """Positions that leave no gap between the virtual tokens and a text that is padded on the left."""
        import torch

        if positions is None and mask is not None and _takes_positions(self.host):
            positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
        if positions is None:
            return None
        count = self.tokens.shape[0]
        own = torch.arange(count, device=positions.device).expand(positions.shape[0], -1)
        return torch.cat((own, positions + count), dim=1)


@hookimpl
def llmad_adapters() -> list[type[AdapterSpec]]:
    """Prompt tuning."""
    return [Prompt]


def _embedding(stack: "nn.Module") -> "nn.Embedding":
    table: nn.Embedding = stack.get_input_embeddings()  # type: ignore[operator]  # every transformers model has it
    return table


def _takes_positions(stack: "nn.Module") -> bool:
    from inspect import signature

    return "position_ids" in signature(stack.forward).parameters


def _length(call: dict[str, Any]) -> int:
    text = call["inputs_embeds"] if call.get("inputs_embeds") is not None else call["input_ids"]
    return int(text.shape[1])


def _check(mask: "Tensor | None", width: int, cached: int, count: int) -> None:
    """Refuse what would silently attend to the wrong places."""
    if mask is None:
        return
    if mask.dim() != 2:
        raise ModelError("prompt-mask", "prompt needs a mask of (batch, length)", "use a dynamic cache")
    text = cached + width - (count if cached else 0)
    if text < mask.shape[1]:  # more than the text is in the cache where another prompt put it there
        raise ModelError(
            "prompt-cache",
            f"the mask covers {mask.shape[1]} tokens, the text and its cache hold {text}",
            "do not hand a cache from another call to generate while a prompt adapter is active",
        )


def _pad_left(mask: "Tensor", count: int, value: int) -> "Tensor":
    from torch.nn import functional

    return functional.pad(mask, (count, 0), value=value)


def _without(output: Any, count: int, rows: int) -> Any:
    """Take the virtual tokens out of whatever the stack returned: `rows` of the states, `count` of the keys."""
    if isinstance(output, tuple):
        return (output[0][:, rows:], *output[1:])
    output.last_hidden_state = output.last_hidden_state[:, rows:]
    if output.get("hidden_states") is not None:
        output.hidden_states = tuple(states[:, rows:] for states in output.hidden_states)
    if output.get("attentions") is not None:
        output.attentions = tuple(weights[..., rows:, count:] for weights in output.attentions)
    return output
