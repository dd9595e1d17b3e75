"""Memory: what a model remembers of a text between calls, and which virtual tokens are in it.

Most models have a cache of keys and values, some states of other kinds; each comes in an argument and goes out again.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast, overload

from llmad import AdapterModule, ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

ARGUMENTS = ("past_key_values", "cache_params", "state", "mems", "past_buckets_states", "cache")
_HELD = "_llmad_virtual_tokens"


@dataclass(frozen=True)
class Held:
    """The virtual tokens of one adapter in a memory: how many, and how wide the text of the first call was."""

    count: int
    first: int


def memory(call: Mapping[str, Any]) -> Any:
    """What the call is to go on from; None where there is nothing."""
    return next((call[name] for name in ARGUMENTS if call.get(name) is not None), None)


def cached(call: Mapping[str, Any]) -> int | None:
    """How many tokens are remembered; None where that is not to be seen."""
    there = memory(call)
    if there is None or there == [] or there == () or there == {}:
        return 0
    if not hasattr(there, "get_seq_length"):
        return None
    _check_growing(there)
    layers = getattr(there, "layers", [])
    if not layers or any(hasattr(layer, "get_seq_length") for layer in layers):
        return int(there.get_seq_length())
    return None if there.has_previous_state() else 0


@overload
def held(call: Mapping[str, Any]) -> int | None: ...
@overload
def held(call: Mapping[str, Any], module: AdapterModule) -> Held | None: ...
def held(call: Mapping[str, Any], module: AdapterModule | None = None) -> Any:
    """An adapter's virtual tokens in what is remembered, or the number of all; None where that is unknown."""
    there: dict[int, Held] | None = getattr(memory(call), _HELD, None)
    if module is not None:
        return (there or {}).get(id(module))
    return None if there is None else sum(one.count for one in there.values())


def hold(output: Mapping[str, Any], module: Any, width: int) -> None:
    """Note in the memory that comes out of a first call that the module's virtual tokens are in it."""
    there = memory(output)
    if hasattr(there, "__dict__"):
        setattr(there, _HELD, {**getattr(there, _HELD, {}), id(module): Held(module.count, width)})


def _check_growing(cache: Any) -> None:
    from transformers.cache_utils import StaticLayer

    if any(isinstance(layer, StaticLayer) for layer in getattr(cache, "layers", ())):
        raise ModelError("virtual-cache", "virtual tokens have no room in a static cache", "use a dynamic cache")


def new_cache(stack: "nn.Module") -> Any:
    """An empty cache for a model."""
    from transformers import DynamicCache

    return DynamicCache(config=cast(Any, stack).config)


def has_states(cache: Any) -> bool:
    """Whether some layers of a cache keep a state of the text."""
    return any(hasattr(layer, "has_previous_state") for layer in cache.layers)


def put(cache: Any, number: int, keys: "Tensor", values: "Tensor") -> None:
    """Add to what a layer of a cache holds, (batch, heads, length, size), as its own class does it."""
    layer = cache.layers[number] if number < len(cache.layers) else None
    if layer is not None and "update" in vars(layer):  # within `behind_padding`
        type(layer).update(layer, keys, values)
    else:
        cache.update(keys, values, number)


@contextmanager
def behind_padding(cache: Any, start: "Tensor") -> Iterator[None]:
    """Within the block, which has a first call, what the cache holds already goes behind each row's padding."""
    layers = [layer for layer in cache.layers if getattr(layer, "keys", None) is not None]
    for layer in layers:
        vars(layer)["update"] = partial(_reordered, layer, layer.update, start[:, None])
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["update"]


def _reordered(
    layer: Any, update: Any, start: "Tensor", keys: "Tensor", values: "Tensor", *rest: Any, **more: Any
) -> Any:
    """The layer's update, for a text that has padding on the left, (batch, heads, length, size)."""
    import torch

    held = layer.keys.shape[-2]
    number = torch.arange(held + keys.shape[-2], device=keys.device)
    number = torch.where(number < start, number + held, torch.where(number < start + held, number - start, number))
    whole = [pairs.gather(-2, number[..., None].expand(pairs.shape)) for pairs in update(keys, values, *rest, **more)]
    layer.keys, layer.values = (pairs[..., -layer.keys.shape[-2] :, :] for pairs in whole)
    return tuple(whole)


_PLAIN = (  # by name: not every transformers has all of them
    "DynamicLayer",
    "DynamicSlidingWindowLayer",
    "LinearAttentionAndFullAttentionLayer",
    "LinearAttentionAndSlidingWindowAttentionLayer",
)


def has_index(cache: Any) -> bool:
    """Whether some layers of a cache keep more than keys, values and states: an index that chooses among them."""
    others = {type(layer).__name__ for layer in cache.layers if hasattr(layer, "keys") and not _is_plain(layer)}
    return bool(others - {"DummyLayer"})  # a layer that uses the keys of another keeps nothing


def _is_plain(layer: Any) -> bool:
    return type(layer).__name__ in _PLAIN


def check_room(host: Any, cache: Any, every: Any) -> None:
    """Refuse a cache that keeps more of a token than its key and value."""
    for pairs in every:
        there = cache.layers[pairs.layer] if pairs.layer < len(cache.layers) else None
        if there is not None and not _is_plain(there):
            raise ModelError(
                "virtual-cache",
                f"{type(host).__name__} caches more than keys and values: a {type(there).__name__} "
                "has no room for key/value pairs",
                "use prompt, or another cache",
            )
