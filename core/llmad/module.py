"""AdapterModule: the small trained module, and how it can be subclassed before torch is imported.

A plugin file holds a config class and a module class side by side, and the list of adapters must not pay
for torch. So `AdapterModule` is a plain class until the first instance of a subclass is made; then torch is
imported and the instance's class becomes `type(cls.__name__, (cls, torch.nn.Module), {})`. `super().__init__()`,
`isinstance(module, torch.nn.Module)` and copying all behave as if it had been a torch module from the start.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, cast

from llmad.errors import ModelError
from llmad.site import Site

if TYPE_CHECKING:
    from torch import Tensor, nn

    from llmad.layers import Linear

    _Module = nn.Module
else:
    _Module = object


class AdapterModule(_Module):
    """A small trained module that wraps the call of the place it sits at.

    Subclasses define `forward(self, base, x)`: `base` is the wrapped place, `x` the hidden states that come in
    (batch, length, in_features); what is returned goes out (batch, length, out_features). `base(x)` may be called
    with `x` or something else in its place; the call's other arguments stay as they are.

    Attributes:
        whole_call: True for a module that needs more than the hidden states: `forward(self, base, **call)` then
            gets every argument of the call by name, and `rows`: which rows of the batch it is for, (batch,) of bool, or
            None for all. It returns the place's whole output.
        tokens_before: how many tokens it puts before every text, each at a position of its own.
        reads_weight: True for a module that uses the weight of its place: nothing is merged into that from below it.
        site: where the module sits.
        host: the module at the site. It is not a submodule: it is neither saved, moved nor trained from here.
        model: the whole model, which is no submodule either.
    """

    whole_call: ClassVar[bool] = False
    reads_weight: ClassVar[bool] = False
    tokens_before: int = 0
    site: Site
    host: "nn.Module"
    model: "nn.Module"

    def __new__(cls, *_: Any, **__: Any) -> "AdapterModule":
        """Make an instance of the torch class that stands behind `cls`."""
        instance: AdapterModule = object.__new__(_torch_class(cast(type, cls)))
        return instance

    def begin(self) -> None:
        """Finish what depends on the base, once, when `site` and `host` are known; by default nothing.

        Nothing is attached yet: what the base cannot do is best refused here, with a ModelError.
        """

    def rehearsal(self) -> "AbstractContextManager[nn.Module]":
        """The model once more, without weights and adapters, to see what its forward does; for use in `begin`.

        Within the block it can be called: tensors are on the meta device, and what a forward asks about their values
        is answered with zero. Gradients are followed.
        """
        from llmad.twin import rehearsal

        return rehearsal(self.model)

    def host_weight(self) -> "Tensor":
        """The weight of the place, (out_features, in_features): a fused linear's own rows.

        It is in the base's dtype, or, where the base is quantised, a copy in the one that it is dequantised to.

        Raises:
            ModelError: the place has no weight that could be read.
        """
        from llmad.placement import in_memory
        from llmad.weights import weight

        with in_memory(self.host):
            return weight(self.host, self.site)

    def host_bias(self) -> "Tensor | None":
        """The bias of the place, (out_features,): a fused linear's own rows; None where it has none."""
        from llmad.placement import in_memory
        from llmad.weights import bias

        with in_memory(self.host):
            return bias(self.host, self.site)

    def beside(self, name: str) -> "AdapterModule":
        """The module of another adapter at the same place.

        Raises:
            ModelError: no adapter of that name sits here.
        """
        adapters = getattr(self.host, "adapters", {})
        if name not in adapters or self.site.slot not in adapters[name]:
            raise ModelError("not-here", f"no adapter {name!r} sits at {self.site.label}", "attach it there first")
        found: AdapterModule = adapters[name][self.site.slot]
        return found

    def as_low_rank(self) -> "tuple[Linear, Linear, float, float] | None":
        """The arguments of `low_rank` beyond base and x, where that is all that `forward` does; by default None.

        Several adapters at one place, each for rows of its own, are then computed at once.
        """
        return None

    def fold(self, weight: "Tensor", bias: "Tensor | None") -> "tuple[Tensor, Tensor | None]":
        """The weight and bias that do alone what the place and the module do together; used to merge.

        By default `delta` is added; a module that is linear in another way overrides this.
        """
        update = self.delta().to(weight)
        return weight + (weight @ update if self.site.before else update), bias

    if TYPE_CHECKING:  # optional: a module that has it, or a `fold` of its own, can be merged

        def delta(self) -> Tensor:
            """The update of the weight, (out_features, in_features): the module adds `x @ delta.T`."""
            ...

    @staticmethod
    def linear(in_features: int, out_features: int, bias: bool = True) -> "Linear":
        """A linear map that computes in the dtype of its input, whatever dtype its weight is kept in."""
        from llmad.layers import Linear

        return Linear(in_features, out_features, bias=bias)

    @staticmethod
    def low_rank(
        base: "Callable[[Tensor], Tensor]",
        x: "Tensor",
        down: "Linear",
        up: "Linear",
        scale: float = 1.0,
        dropout: float = 0.0,
    ) -> "Tensor":
        """`base(x) + scale * up(down(F.dropout(x, dropout)))` of two maps of `linear`, in less time and memory."""
        from llmad.low_rank import low_rank

        return low_rank(base, x, down, up, scale, dropout)

    @staticmethod
    def activation(name: str) -> "Callable[[Tensor], Tensor]":
        """The non-linearity of that name, as transformers knows it (`relu`, `gelu`, `silu`, `tanh`, ...)."""
        from transformers.activations import ACT2FN

        function: Callable[[Tensor], Tensor] = ACT2FN[name]
        return function


@cache
def _torch_class(cls: type) -> type:
    from torch import nn

    if issubclass(cls, nn.Module):
        return cls
    return type(cls.__name__, (cls, nn.Module), {"__module__": cls.__module__, "__doc__": cls.__doc__})


def mergeable(module: AdapterModule) -> bool:
    """Whether the module says what it makes of the weight."""
    return callable(getattr(module, "delta", None)) or type(module).fold is not AdapterModule.fold
