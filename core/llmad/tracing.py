"""Tracing: which output rows of a linear map become queries, keys, values or a gate, seen where the model uses them.

A twin of the model without weights runs one forward. Beside each tensor that comes from a watched linear map walks a
tensor of the same shape that says, element by element, which row it was; whatever reshapes, splits, reorders or
repeats the one does the same to the other. Where two of them meet in attention (or a gate meets what it lets through)
the rows are read off.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from llmad.site import Rows
from llmad.twin import twin, without_values

Uses = dict[str, dict[str, set[int]]]  # path of the linear map, then role, to the rows that are it
_TRACED: dict[tuple[type, str, tuple[str, ...]], Uses] = {}
_FOREIGN = -1
_PRODUCTS = ("matmul", "__matmul__", "bmm", "baddbmm", "einsum")
_ACTIVATIONS = ("silu", "gelu", "relu", "sigmoid", "tanh", "leaky_relu", "softplus", "mish", "hardtanh", "relu6")
_JOINS = ("cat", "concat", "concatenate", "stack")
_BLANKS = ("empty", "zeros", "new_empty", "new_zeros", "empty_like", "zeros_like", "new_full", "full_like", "ones_like")
_MOVES = (
    "view", "reshape", "transpose", "permute", "split", "chunk", "tensor_split", "split_with_sizes", "unbind",
    "__getitem__", "contiguous", "clone", "expand", "expand_as", "repeat", "repeat_interleave", "flatten", "unflatten",
    "broadcast_to", "squeeze", "unsqueeze", "movedim", "swapaxes", "select", "narrow", "roll", "flip", "view_as",
    "__get__", "detach",
)  # fmt: skip


def uses(model: nn.Module, paths: Collection[str]) -> Uses:
    """The rows of each of these linear maps, by the role that the model's forward gives them.

    A map whose use is not seen is left out, as is everything where no twin can be made or run. The same architecture
    is traced once.
    """
    config = cast(Any, model).config
    key = type(model), config.to_json_string(), tuple(paths)
    if key not in _TRACED:
        _TRACED[key] = _trace(model, paths)
    return _TRACED[key]


def _trace(model: nn.Module, paths: Collection[str]) -> Uses:
    watch = _Watch()
    with suppress(Exception):  # a twin runs a stranger's code without weights: whatever it raises, nothing was seen
        there = twin(model)
        for path in paths:
            watch.watch(path, there.get_submodule(path).weight)
        device = torch.device("meta")
        ids = torch.zeros(1, 3, dtype=torch.long, device=device)
        with torch.no_grad(), watch:
            there(input_ids=ids, attention_mask=torch.ones_like(ids))
    return watch.read()


def rows(out_features: int, own: Collection[int]) -> Rows | None:
    """Rows of a linear map as equal stretches at equal distances; None where they are not."""
    order = sorted(own)
    starts = [row for row in order if row - 1 not in own]
    if not starts or out_features % len(starts) or len(order) % len(starts):
        return None
    stride, length = out_features // len(starts), len(order) // len(starts)
    found = Rows(len(starts), stride, starts[0], length)
    return found if found.start + length <= stride and found.index() == order else None


class _Origin:
    """Where a tensor's elements come from.

    `numbers` has the tensor's shape; each is the place of a row in `names`. `score` marks products of queries and
    keys, `active` what went through a non-linearity.
    """

    def __init__(self, numbers: Tensor | None, score: bool = False, active: bool = False) -> None:
        self.numbers, self.score, self.active = numbers, score, active


class _Watch(TorchFunctionMode):
    """Walks along and notes the uses."""

    def __init__(self) -> None:
        super().__init__()
        # Tensors are kept beside what is known of them, so that their ids stay their own.
        self.weights: dict[int, tuple[Tensor, str]] = {}
        self.origins: dict[int, tuple[Tensor, _Origin]] = {}
        self.alike: dict[str, list[str]] = {}
        self.rows: list[tuple[str, int]] = []
        self.seen: list[tuple[str, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if (answer := without_values(name, args)) is not None:
            return answer
        out = func(*args, **kwargs)
        for tensor, origin in self._followed(func, name, out, args, kwargs):
            self.origins[id(tensor)] = tensor, origin
        return out

    def watch(self, path: str, weight: Tensor) -> None:
        """Look out for a linear map; one that has its weight in common with another is known by that one's path."""
        _, first = self.weights.setdefault(id(weight), (weight, path))
        self.alike.setdefault(first, []).append(path)

    def read(self) -> Uses:
        """The rows by map and role."""
        found: Uses = {}
        for role, numbers in self.seen:
            for number in torch.unique(numbers).tolist():
                if number != _FOREIGN:
                    path, row = self.rows[number]
                    found.setdefault(path, {}).setdefault(role, set()).add(row)
        return {path: _one_role(by_role) for first, by_role in found.items() for path in self.alike[first]}

    def _followed(self, func: Callable[..., Any], name: str, out: Any, args: Any, kwargs: Any) -> Iterator[Any]:
        weight = next((value for value in args if id(value) in self.weights), None)
        if weight is not None and name in ("linear", "addmm", *_PRODUCTS):
            yield out, _Origin(self._rows_of(self.weights[id(weight)][1], out.shape))
        elif weight is not None and name in ("__get__", "t", "transpose"):
            self.weights[id(out)] = out, self.weights[id(weight)][1]
        elif name == "scaled_dot_product_attention":
            self._note(zip(("attn.q", "attn.k", "attn.v"), args, strict=False))
        elif name in _PRODUCTS:
            yield from self._product(out, [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)])
        elif name in _JOINS:
            yield from self._joined(func, out, args, kwargs)
        elif name in _MOVES:
            yield from self._moved(func, out, args, kwargs)
        elif name in _BLANKS and isinstance(out, Tensor):
            yield out, _Origin(torch.full(out.shape, _FOREIGN))
        elif name in ("copy_", "__setitem__"):
            self._written(func, args)
        elif name == "pad":
            yield from self._moved(func, out, args, {**kwargs, "value": _FOREIGN})
        elif isinstance(out, Tensor):
            yield from self._mixed(name, out, args)

    def _rows_of(self, path: str, shape: torch.Size) -> Tensor:
        first = len(self.rows)
        self.rows += [(path, row) for row in range(shape[-1])]
        return torch.arange(first, len(self.rows)).expand(shape)

    def _origin(self, value: Any) -> _Origin | None:
        return self.origins[id(value)][1] if id(value) in self.origins else None

    def _note(self, uses: Any) -> None:
        for role, value in uses:
            origin = self._origin(value)
            if origin and origin.numbers is not None:
                self.seen.append((role, origin.numbers))

    def _product(self, out: Tensor, operands: list[Tensor]) -> Iterator[Any]:
        """Queries times keys makes scores; scores times values."""
        left, right = operands[-2:] if len(operands) > 1 else (None, None)
        first, second = self._origin(left), self._origin(right)
        if first and second and not (first.score or second.score):
            self._note((("attn.q", left), ("attn.k", right)))
            yield out, _Origin(None, score=True)
        elif first and first.score and second:
            self._note((("attn.v", right),))

    def _joined(self, func: Callable[..., Any], out: Tensor, args: Any, kwargs: Any) -> Iterator[Any]:
        parts = list(args[0])
        known = [self._origin(part) for part in parts]
        if any(origin and origin.numbers is not None for origin in known):
            numbers = [
                origin.numbers if origin and origin.numbers is not None else torch.full(part.shape, _FOREIGN)
                for part, origin in zip(parts, known, strict=True)
            ]
            yield out, _Origin(func(numbers, *args[1:], **kwargs))
        elif any(origin and origin.score for origin in known):
            yield out, _Origin(None, score=True)

    def _moved(self, func: Callable[..., Any], out: Any, args: Any, kwargs: Any) -> Iterator[Any]:
        """The same move of the numbers; indices that have no values here stand for the first place."""
        origin, outs = self._origin(args[0]), _tensors(out)
        if not origin or not outs:
            return
        moved: list[Tensor | None] = [None] * len(outs)
        if origin.numbers is not None:
            moved = _tensors(func(origin.numbers, *(_on_cpu(value) for value in args[1:]), **kwargs))
        for tensor, numbers in zip(outs, moved, strict=True):
            yield tensor, _Origin(numbers, origin.score, origin.active)

    def _written(self, func: Callable[..., Any], args: Any) -> None:
        """Numbers written into those of another tensor, or of a view of it."""
        target, source = self._origin(args[0]), self._origin(args[-1])
        if target and target.numbers is not None:
            new = source.numbers if source and source.numbers is not None else torch.tensor(_FOREIGN)
            func(target.numbers, *(_on_cpu(value) for value in args[1:-1]), new)

    def _mixed(self, name: str, out: Tensor, args: Any) -> Iterator[Any]:
        """An element-wise operation: the origin of the first tensor of the same shape; a product may be a gate."""
        known = [(value, origin) for value in args if (origin := self._origin(value)) and value.shape == out.shape]
        if not known:
            return
        first = known[0][1]
        active = any(origin.active for _, origin in known) or name in _ACTIVATIONS
        if name in ("mul", "__mul__", "__rmul__") and len(known) == 2 and known[0][1].active != known[1][1].active:
            gate, inner = sorted(known, key=lambda pair: not pair[1].active)
            if not _same(gate[1], inner[1]):  # else it is the last step of a non-linearity, x * sigmoid(x)
                self._note((("mlp.gate", gate[0]), ("mlp.up", inner[0])))
                return
        yield out, _Origin(first.numbers, first.score, active)


def _same(first: _Origin, second: _Origin) -> bool:
    if first.numbers is None or second.numbers is None:
        return first.numbers is second.numbers
    return torch.equal(first.numbers, second.numbers)


def _one_role(by_role: dict[str, set[int]]) -> dict[str, set[int]]:
    """Each row's one role; one that has several has none.

    In linear attention a product of keys and values comes first, so keys are met on the left and values on the right.
    """
    q, k, v = (by_role.get(role, set()) for role in ("attn.q", "attn.k", "attn.v"))
    if q & k:
        return by_role | {"attn.q": q - k, "attn.k": k - v, "attn.v": v}
    counts = Counter(row for own in by_role.values() for row in own)
    return {role: {row for row in own if counts[row] == 1} for role, own in by_role.items()}


def _tensors(out: Any) -> list[Any]:
    """The tensors of a result: one, those of a tuple, or none (a shape, a dtype)."""
    outs = out if isinstance(out, tuple | list) else [out]
    return list(outs) if all(isinstance(part, Tensor) for part in outs) else []


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor) and value.device.type == "meta":
        return torch.zeros(value.shape, dtype=value.dtype)
    return tuple(_on_cpu(part) for part in value) if isinstance(value, tuple) else value
