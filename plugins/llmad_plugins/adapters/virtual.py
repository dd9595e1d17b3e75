"""Virtual tokens: the modules of the methods that put learned vectors before every text.

There are two kinds: embeddings in the sequence, and key/value pairs in the cache. Either kind is the module's own
affair: it lengthens the mask, shifts the positions, acts on the first call, leaves the cache alone on later ones,
and takes itself out of the outputs again. In a row that the adapter is not for, its tokens are masked out and no
position is shifted. Where several stand in front of one text, the keys are in this order, the innermost first:

    pairs of the inner adapter, pairs of the outer; tokens of the inner, tokens of the outer; text
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from llmad import AdapterModule, ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_HELD = "_llmad_virtual_tokens"
# How many pairs outer adapters have put before what an inner one sees, and how far each row's positions moved for it.
_OUTER: "ContextVar[tuple[int, int | Tensor]]" = ContextVar("outer", default=(0, 0))


class VirtualTokens(AdapterModule):
    """`count` virtual tokens before the text; the stack's output is as if they were not there."""

    whole_call = True
    tokens: "nn.Parameter"

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def virtual(self) -> "Tensor":
        """What is learned, (count, ...): a parameter, or what an encoder makes."""
        return self.tokens

    def cast(self, dtype: "torch.dtype") -> "Tensor":
        """What is learned in the base's dtype; an encoder computes in that of its own weights."""
        import torch

        with torch.autocast(next(self.parameters()).device.type, enabled=False):
            return self.virtual().to(dtype)

    def place(self) -> int:
        """The number of keys that stand before the module's own."""
        raise NotImplementedError

    def within(
        self, base: Callable[..., Any], call: dict[str, Any], first: bool, shift: "int | Tensor"
    ) -> tuple[Any, int]:
        """Call the base with the virtual tokens in it: its output, and how many of its rows are not the text's."""
        raise NotImplementedError

    def forward(self, base: Callable[..., Any], rows: "Tensor | None" = None, **call: Any) -> Any:
        """The stack's output for the text alone; `rows` (batch,) says which rows have the virtual tokens."""
        from torch import int64

        cached, width = _cached(call), text(call).shape[1]
        first = cached == _OUTER.get()[0]  # the cache holds no text yet
        _check(call, cached + width - (0 if first else self.count))
        mask, positions, shift = call.get("attention_mask"), call.get("position_ids"), self._shift(rows, call)
        if mask is None and rows is not None:
            held = 0 if first else _held(call)
            mask = text(call).new_ones((rows.shape[0], cached + width - held), dtype=int64)
        if positions is None and mask is not None and _takes_positions(self.host):
            positions = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -width:]  # no gap where padding is on the left
        if mask is not None:
            call["attention_mask"] = _insert(mask, self.place(), self.count, rows)
        if positions is not None:
            call["position_ids"] = positions + shift
        by_name = self._asked("return_dict", call)
        output, extra = self.within(base, call | {"return_dict": True}, first, shift)
        if first and (cache := output.get("past_key_values")) is not None:
            setattr(cache, _HELD, getattr(cache, _HELD, 0) + self.count)
        whole = _without(output, extra, self.place(), self.count)
        return whole if by_name else whole.to_tuple()

    def _asked(self, option: str, call: Mapping[str, Any]) -> bool:
        """What the call says, or else the base's config."""
        said = call.get(option)
        return bool(getattr(self.host.config, option) if said is None else said)

    def _shift(self, rows: "Tensor | None", call: dict[str, Any]) -> "int | Tensor":
        """How far the positions of the text move: a number, or (batch, 1)."""
        return self.count if rows is None else (rows.to(text(call).device) * self.count).unsqueeze(1)


class SequenceTokens(VirtualTokens):
    """Virtual tokens (count, width) before the embeddings of the text."""

    def place(self) -> int:
        """Behind the pairs of outer adapters."""
        return _OUTER.get()[0]

    def within(
        self,
        base: Callable[..., Any],
        call: dict[str, Any],
        first: bool,
        shift: "int | Tensor",  # noqa: ARG002  it is in the positions
    ) -> tuple[Any, int]:
        """On the first call they go into the sequence; later their keys are in the cache."""
        import torch

        if not first:
            return base(**call), 0
        given = text(call) if call.get("inputs_embeds") is not None else embedding(self.host)(call["input_ids"])
        own = self.cast(given.dtype).expand(given.shape[0], -1, -1)
        call |= {"input_ids": None, "inputs_embeds": torch.cat((own, given), dim=1)}
        if (positions := call.get("position_ids")) is not None:
            counted = torch.arange(self.count, device=positions.device) + _OUTER.get()[1]
            call["position_ids"] = torch.cat((counted.expand(positions.shape[0], -1), positions), dim=1)
        return base(**call), self.count


class CachePairs(VirtualTokens):
    """A key and a value for each virtual token, layer and head: (count, layers * 2 * heads * size)."""

    def begin(self) -> None:
        """Read the sizes of the base's keys."""
        config: Any = self.host.config
        self.heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self.size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.layers = config.num_hidden_layers

    def place(self) -> int:
        """Before everything else."""
        return 0

    def within(
        self, base: Callable[..., Any], call: dict[str, Any], first: bool, shift: "int | Tensor"
    ) -> tuple[Any, int]:
        """On the first call they go into the cache, one made for them where none was given."""
        from transformers import DynamicCache

        if self.host.training and any(getattr(part, "gradient_checkpointing", False) for part in self.host.modules()):
            raise ModelError(
                "virtual-checkpointing",
                "key/value pairs before the text are lost where gradient checkpointing drops the cache",
                "train without gradient checkpointing",
            )
        made = call.get("past_key_values") is None
        if made:
            call["past_key_values"] = DynamicCache(config=self.host.config)
        outer, moved = _OUTER.get()
        if first:
            self._fill(call["past_key_values"], outer, text(call).shape[0])
        here = _OUTER.set((outer + self.count, moved + shift))
        try:
            output = base(**call)
        finally:
            _OUTER.reset(here)
        if made and not self._asked("use_cache", call):
            output = type(output)(**{name: value for name, value in output.items() if name != "past_key_values"})
        return output, 0

    def _fill(self, cache: Any, outer: int, batch: int) -> None:
        """Put the pairs before those that are there."""
        from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

        if other := {type(layer) for layer in cache.layers} - {DynamicLayer, DynamicSlidingWindowLayer}:
            raise ModelError("virtual-cache", f"a {other.pop().__name__} has no room for key/value pairs", _CURE)
        own = self.cast(embedding(self.host).weight.dtype)
        own = own.view(self.count, self.layers, 2, self.heads, self.size).permute(1, 2, 3, 0, 4)
        places = self._places()
        for number, pair in enumerate(own):
            keys, values = pair.to(places.get(number, pair.device))
            cache.update(keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1), number)
            layer = cache.layers[number]
            if layer.keys.shape[-2] < outer + self.count:
                raise ModelError(
                    "virtual-cache",
                    f"the base's attention sees {layer.sliding_window} tokens, which leaves {self.count} pairs no room",
                    "take fewer virtual tokens",
                )
            if outer:
                layer.keys, layer.values = (pairs.roll(self.count, -2) for pairs in (layer.keys, layer.values))

    def _places(self) -> dict[int, Any]:
        """The device that accelerate takes each layer's tensors to, where a base lies on several."""
        hooked = ((getattr(part, "layer_idx", None), getattr(part, "_hf_hook", None)) for part in self.host.modules())
        there = ((number, getattr(hook, "execution_device", None)) for number, hook in hooked)
        return {number: device for number, device in there if number is not None and device is not None}


def text(call: Mapping[str, Any]) -> "Tensor":
    """The call's embeddings or, where there are none, its ids: (batch, length, ...)."""
    given: Tensor = call["inputs_embeds"] if call.get("inputs_embeds") is not None else call["input_ids"]
    return given


def embedding(stack: "nn.Module") -> "nn.Embedding":
    """The table of the vocabulary."""
    table: nn.Embedding = stack.get_input_embeddings()  # type: ignore[operator]  # every transformers model has it
    return table


def _cached(call: Mapping[str, Any]) -> int:
    cache = call.get("past_key_values")
    if getattr(cache, "is_compileable", False):
        raise ModelError("virtual-cache", "virtual tokens have no room in a static cache", _CURE)
    return cache.get_seq_length() if cache is not None else 0


def _held(call: Mapping[str, Any]) -> int:
    """How many of the cached tokens are virtual, those of every adapter; a cache keeps count from its first call on."""
    held = getattr(call["past_key_values"], _HELD, None)
    if held is None:
        raise ModelError(
            "virtual-mask",
            "virtual tokens for some rows of a batch need the mask of a text that goes on from this cache",
            "give attention_mask, over the cached and the new tokens",
        )
    return int(held)


def _check(call: Mapping[str, Any], length: int) -> None:
    """Refuse what would silently attend to the wrong places; `length` is that of the cached and the new text."""
    mask, positions = call.get("attention_mask"), call.get("position_ids")
    if mask is not None and mask.dim() != 2:
        raise ModelError("virtual-mask", "virtual tokens need a mask of (batch, length)", _CURE)
    if mask is not None and mask.shape[1] > length:  # the cache was filled where other adapters were active
        raise ModelError(
            "virtual-cache",
            f"the mask covers {mask.shape[1]} tokens, the text and its cache hold {length}",
            "do not hand a cache to other adapters than those that it was filled with",
        )
    if mask is None and positions is not None and bool((positions.diff(dim=-1) < 0).any()):
        raise ModelError(
            "virtual-packed",
            "virtual tokens cannot stand before each of several texts in one row",
            "give every text a row of its own",
        )


def _takes_positions(stack: "nn.Module") -> bool:
    from inspect import signature

    return "position_ids" in signature(stack.forward).parameters


def _insert(mask: "Tensor", place: int, count: int, rows: "Tensor | None") -> "Tensor":
    """A mask that has the virtual tokens in it: visible in all rows, or in those that are meant."""
    import torch

    own = mask.new_ones(mask.shape[0], count) if rows is None else rows.to(mask).unsqueeze(1).expand(-1, count)
    return torch.cat((mask[:, :place], own, mask[:, place:]), dim=1)


def _without(output: Any, rows: int, place: int, count: int) -> Any:
    """Take the virtual tokens out of whatever the stack returned: `rows` of the states, `count` of the keys."""
    import torch

    fields = dict(output)
    fields["last_hidden_state"] = fields["last_hidden_state"][:, rows:]
    if fields.get("hidden_states") is not None:
        fields["hidden_states"] = tuple(states[:, rows:] for states in fields["hidden_states"])
    if fields.get("attentions") is not None:
        fields["attentions"] = tuple(
            torch.cat((weights[..., rows:, :place], weights[..., rows:, place + count :]), dim=-1)
            for weights in fields["attentions"]
        )
    return type(output)(**fields)


_CURE = "use a dynamic cache"
