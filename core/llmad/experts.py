"""Experts: adapters around single matrices of a parameter that stacks those of all experts of a mixture.

    E experts, (E, out_features, in_features)        each adapter sees the tokens that are routed to its expert

A mixture has no module for an expert, so there is no call to wrap. While its forward runs, the products with the
stacked parameter are looked out for instead, in each form that transformers has: one expert at a time, a matrix
gathered for each token, a grouped product over sorted tokens, a batched product. What the base computes stays as it is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from llmad.errors import ModelError

Call = Callable[..., Any]
Wraps = Mapping[tuple[str, int], Callable[[Call], Call]]  # by the parameter's name and the expert's number
_PRODUCTS = ("matmul", "__matmul__", "bmm")
_GROUPED = ("grouped_mm", "_grouped_mm", "grouped_mm_fallback")


def routed(module: nn.Module, call: Call, wraps: Wraps) -> Call:
    """The call of a mixture's experts, with the adapters in `wraps` around their matrices.

    Raises:
        ModelError: when it is called, where its forward does not use the parameters in a form that is known.
    """

    def forward(*args: Any, **kwargs: Any) -> Any:
        with _Watch(module, wraps) as watch:
            out = call(*args, **kwargs)
        if watch.missing:
            raise ModelError(
                "experts-not-reached",
                f"{type(module).__name__} does not multiply with {', '.join(sorted(watch.missing))} in a known form",
                "leave its experts out",
            )
        return out

    return forward


@dataclass(frozen=True)
class _View:
    """What a tensor shows of a stacked parameter: all of it, one expert, or one for each token; maybe turned over."""

    parameter: str
    held: Tensor
    experts: int | Tensor | None = None
    turned: bool = False

    def seen(self, tensor: Tensor, name: str, args: tuple[Any, ...]) -> "_View":
        """The view that an indexing or a transposition makes of it."""
        if name != "__getitem__":
            return replace(self, turned=not self.turned)
        index = args[1]
        single = self.held[0].dim() == tensor.dim()
        return replace(self, experts=int(index) if single else index)

    def product(self, x: Tensor, expert: int, right: bool) -> Tensor:
        """The plain product of tokens with one expert's matrix; `right` where it stands as (in, out)."""
        matrix = self.held[expert].T if self.turned else self.held[expert]
        return x @ (matrix if right else matrix.T)

    def segments(self, tokens: int) -> Iterator[tuple[int, Tensor | None]]:
        """Each expert with the numbers of its tokens; all where None."""
        if isinstance(self.experts, int):
            yield self.experts, None
        elif self.experts is None:  # a batched product: the tokens of an expert are one entry of the batch
            yield from ((expert, torch.tensor([expert], device=self.held.device)) for expert in range(tokens))
        else:
            for expert in torch.unique(self.experts).tolist():
                yield expert, (self.experts == expert).nonzero().flatten()


class _Watch(TorchFunctionMode):
    """Looks out for products with the stacked parameters; `missing` names those that were not met yet."""

    def __init__(self, module: nn.Module, wraps: Wraps) -> None:
        super().__init__()
        self.wraps = wraps
        self.missing = {parameter for parameter, _ in wraps}
        held = {name: module.get_parameter(name) for name in self.missing}
        # The tensor is kept with its view: an id is used again once its tensor is gone.
        self.views: dict[int, tuple[Tensor, _View]] = {
            id(tensor): (tensor, _View(name, tensor)) for name, tensor in held.items()
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        out = func(*args, **kwargs)
        first, second = self._view(args, 0), self._view(args, 1)
        if first and name in ("__getitem__", "transpose", "__get__"):
            if isinstance(out, Tensor) and out.dim() >= 2:
                self.views[id(out)] = out, first.seen(out, name, args)
        elif second and name == "linear":
            return self._adapted(out, args[0], second, second.segments(0), right=False)
        elif second and name in _PRODUCTS:
            return self._adapted(out, args[0], second, second.segments(len(out)), right=True)
        elif first and name in _PRODUCTS:  # each token is a column
            adapted = self._adapted(out.mT, args[1].mT, first, first.segments(len(out)), right=False)
            return adapted.mT
        elif second and name in _GROUPED:
            ends = kwargs["offs"].tolist()
            return self._adapted(out, args[0], second, _between(ends, out.device), right=True)
        return out

    def _view(self, args: tuple[Any, ...], place: int) -> _View | None:
        tensor = args[place] if len(args) > place else None
        return self.views[id(tensor)][1] if id(tensor) in self.views else None

    def _adapted(
        self, out: Tensor, x: Tensor, view: _View, segments: Iterable[tuple[int, Tensor | None]], right: bool
    ) -> Tensor:
        """The product with each adapted expert's part of it as the adapters make it."""
        self.missing.discard(view.parameter)
        places, parts = [], []
        for expert, index in segments:
            if wrap := self.wraps.get((view.parameter, expert)):
                part = _part(wrap, view, expert, right, x if index is None else x[index], out, index)
                if index is None:
                    return part
                places.append(index)
                parts.append(part)
        return out.index_copy(0, torch.cat(places), torch.cat(parts)) if places else out


def _part(
    wrap: Callable[[Call], Call],
    view: _View,
    expert: int,
    right: bool,
    own: Tensor,
    out: Tensor,
    index: Tensor | None,
) -> Tensor:
    """What the adapters make of one expert's tokens; its own product is not computed again."""
    there = out if index is None else out[index]

    def base(x: Tensor) -> Tensor:
        return there if x is own else view.product(x, expert, right)

    part: Tensor = wrap(base)(own)
    return part


def _between(ends: list[int], device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """The tokens of each expert where they stand in order; an expert without tokens is left out."""
    start = 0
    for expert, end in enumerate(ends):
        if end > start:
            yield expert, torch.arange(start, end, device=device)
        start = end
