"""Virtual tokens as pairs of keys and values in the cache, before those of the text."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from llmad import ModelError
from llmad_plugins.adapters.memory import behind_padding, check_room, has_states, new_cache, put
from llmad_plugins.adapters.rehearsal import Seen, arguments, leaf, refusal
from llmad_plugins.adapters.virtual import Outer, VirtualTokens, embedding, outer, text

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """What one layer of the cache holds for a token: `heads` keys of one size and values of another."""

    layer: int
    heads: int
    key: int
    value: int

    @property
    def width(self) -> int:
        """The numbers that a virtual token has here."""
        return self.heads * (self.key + self.value)


class CachePairs(VirtualTokens):
    """A key and a value for each virtual token, head and layer that caches them: (count, numbers in all layers).

    Layers that keep something else (a state, or nothing) are as they are without the adapter. A layer that caches
    what its keys and values are made of (multi-head latent attention) has virtual tokens of that.
    """

    kind = "pairs of keys and values"
    pairs: tuple[Pairs, ...] = ()
    stateful = False  # whether there are layers that keep a state

    def begin(self) -> None:
        """Find the sizes: those that the base puts into its cache or, where that is not to be seen, by its config."""
        there = arguments(self.host)
        if "past_key_values" not in there:
            raise refusal(self.host, "keeps no cache of keys and values (past_key_values)")
        if "attention_mask" not in there:
            raise refusal(self.host, "takes no mask (attention_mask) that pairs of keys and values could be in")
        if not hasattr(embedding(self.host), "weight"):
            raise refusal(self.host, "has several tables of embeddings and reads several tokens at a time")
        super().begin()
        if not self.pairs:
            config: Any = self.host.config
            heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
            size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
            self.pairs = tuple(Pairs(layer, heads, size, size) for layer in range(config.num_hidden_layers))

    @property
    def width(self) -> int:
        """The numbers of a token's keys in the layer that has most."""
        return max(pairs.heads * pairs.key for pairs in self.pairs)

    @property
    def numbers(self) -> int:
        """The numbers of a virtual token in all layers."""
        return sum(pairs.width for pairs in self.pairs)

    def prepare(self, seen: Seen) -> None:
        """Read the sizes of what the base caches."""
        super().prepare(seen)
        cache = seen.cache()
        self.pairs, self.stateful = tuple(_read(self.host, cache)), has_states(cache)
        if not self.pairs:
            raise refusal(self.host, "has no layer that caches keys and values")
        if self.stateful and any(cache.is_sliding):
            why = "keeps states and a sliding window: padding before a text would take the pairs' room in it"
            raise refusal(self.host, why)

    def understudy(self) -> "tuple[VirtualTokens, list[Tensor]]":
        """Pairs without values."""
        there = _Understudy(self.count)
        there.pairs, there.stateful = self.pairs, self.stateful
        there.made = [
            (leaf(pairs.heads, self.count, pairs.key), leaf(pairs.heads, self.count, pairs.value))
            for pairs in self.pairs
        ]
        return there, [part for both in there.made for part in both]

    def place(self, start: "int | Tensor") -> "int | Tensor":
        """Behind the padding; a layer with a state takes the end of the mask for that of the text."""
        return 0 if self.stateful else start

    def passed_on(self, known: Outer, shift: "int | Tensor") -> Outer:
        """So many pairs more."""
        return replace(known, pairs=known.pairs + self.count, moved=known.moved + shift)

    def made_for(self, dtype: Any) -> "list[tuple[Tensor, Tensor]]":
        """Keys (heads, count, size) and values of each layer."""
        split = cast(Any, self.cast(dtype)).split([pairs.width for pairs in self.pairs], dim=-1)
        return [_apart(own, pairs) for own, pairs in zip(split, self.pairs, strict=True)]

    def within(self, base: Callable[..., Any], call: dict[str, Any], first: bool, start: "int | Tensor") -> Any:
        """On the first call they go into the cache, one made for them where none was given."""
        if self.host.training and any(getattr(part, "gradient_checkpointing", False) for part in self.host.modules()):
            raise ModelError(
                "virtual-checkpointing",
                "key/value pairs before the text are lost where gradient checkpointing drops the cache",
                "train without gradient checkpointing",
            )
        made, wanted = call.get("past_key_values") is None, self._asked("use_cache", call)
        if made:
            call |= {"past_key_values": new_cache(self.host), "use_cache": True}
        cache, before = call["past_key_values"], outer().pairs - self.count
        if first:
            self._fill(cache, before, text(call).shape[0])
        behind = self.place(start)
        with nullcontext() if not first or before or isinstance(behind, int) else behind_padding(cache, behind):
            output = base(**call)
        if made and not wanted:
            output = type(output)(**{name: value for name, value in output.items() if name != "past_key_values"})
        return output

    def _fill(self, cache: Any, before: int, batch: int) -> None:
        """Put the pairs before those that are there."""
        check_room(self.host, cache, self.pairs)
        made, places = self.made_for(embedding(self.host).weight.dtype), self._places()
        for pairs, pair in zip(self.pairs, made, strict=True):
            keys, values = (part.to(places.get(pairs.layer, part.device)) for part in pair)
            put(cache, pairs.layer, keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1))
            layer = cache.layers[pairs.layer]
            if layer.keys.shape[-2] < before + self.count:
                raise ModelError(
                    "virtual-cache",
                    f"the base's attention sees {layer.sliding_window} tokens, which leaves {self.count} pairs no room",
                    "take fewer virtual tokens",
                )
            if before:
                layer.keys, layer.values = (there.roll(self.count, -2) for there in (layer.keys, layer.values))

    def _places(self) -> dict[int, Any]:
        """The device that accelerate takes each layer's tensors to, where a base lies on several."""
        hooked = ((getattr(part, "layer_idx", None), getattr(part, "_hf_hook", None)) for part in self.host.modules())
        there = ((number, getattr(hook, "execution_device", None)) for number, hook in hooked)
        return {number: device for number, device in there if number is not None and device is not None}


class _Understudy(CachePairs):
    """Pairs whose keys and values of each layer are parameters of their own."""

    made: "list[tuple[Tensor, Tensor]]"

    def made_for(self, dtype: Any) -> "list[tuple[Tensor, Tensor]]":
        """As they are."""
        return [(keys.to(dtype), values.to(dtype)) for keys, values in self.made]


def _apart(own: "Tensor", pairs: Pairs) -> "tuple[Tensor, Tensor]":
    """(count, width) to keys (heads, count, size) and values."""
    keys, values = cast(Any, own).split((pairs.heads * pairs.key, pairs.heads * pairs.value), dim=-1)
    return (
        keys.unflatten(-1, (pairs.heads, pairs.key)).transpose(0, 1),
        values.unflatten(-1, (pairs.heads, pairs.value)).transpose(0, 1),
    )


def _read(host: Any, cache: Any) -> "list[Pairs]":
    """The sizes of the keys and values in a cache."""
    filled = [number for number, layer in enumerate(cache.layers) if getattr(layer, "keys", None) is not None]
    found = []
    for number in filled:
        keys, values = cache.layers[number].keys, cache.layers[number].values
        found.append(Pairs(number, keys.shape[1], keys.shape[-1], values.shape[-1]))
    check_room(host, cache, found)
    return found
