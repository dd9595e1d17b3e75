"""Rehearsal: what an architecture does with virtual tokens, seen on a twin without weights before anything is attached.

The model is run as it is, then with an understudy of the adapter in its place. What raises is refused in the words of
the model, and so is what would go wrong in silence: a table that tokens are looked up in by their ids besides the
vocabulary's, and virtual tokens that nothing computes with.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from llmad import ModelError
from llmad_plugins.adapters.memory import new_cache

if TYPE_CHECKING:
    from torch import Tensor, nn

    from llmad_plugins.adapters.virtual import VirtualTokens

_SIZE = 2, 3  # rows and tokens of the text that is rehearsed


def rehearse(module: "VirtualTokens") -> None:
    """Run the model with an understudy of the module.

    A model that does not run without weights is not rehearsed: some forwards need values.

    Raises:
        ModelError: the virtual tokens would have no effect, a wrong one, or none at all.
    """
    with ExitStack() as stack:
        try:
            model = stack.enter_context(module.rehearsal())
            seen = _plain(model, module)
        except Exception:
            return
        _check_call(module, seen)
        module.prepare(seen)
        understudy, leaves = module.understudy()
        vars(understudy).update(site=module.site, host=seen.host, model=model)
        again = Seen(model, module.site.path)
        with in_words(module.host, f"{module.kind} before the text"):
            again.run(understudy)
        _check_tables(module, seen, again)
        if not _followed(again.states, leaves):
            raise refusal(module.host, f"computes nothing with {module.kind} before the text")


class Seen:
    """One run of a twin, and what was seen at the host.

    Attributes:
        host: the twin's module at the site.
        arguments: the names of the arguments that its forward has.
        called: the modules that it called.
        masked: whether it looked at the mask.
        call: what the model called it with.
        states: the hidden states that it returned.
    """

    def __init__(self, model: "nn.Module", path: str) -> None:
        from inspect import signature

        self.model, self.host = model, model.get_submodule(path)
        self.names = list(signature(self.host.forward).parameters)
        self.arguments = set(self.names)
        self.called: set[str] = set()
        self.masked = False
        self.call: dict[str, Any] = {}
        self.states: Tensor | None = None

    def run(self, around: Callable[..., Any] | None = None) -> Any:
        """The host's output in a forward of the model, with something around the host's own forward."""
        import torch

        own, seen = self.host.forward, []

        def forward(*args: Any, **kwargs: Any) -> Any:
            call = self.call = dict(zip(self.names, args, strict=False)) | kwargs
            with _watched(call.get("attention_mask")) as looked_at:
                seen.append(around(own, **call) if around else own(**call))
            self.masked = bool(looked_at)
            return seen[-1]

        ids = torch.zeros(*_SIZE, dtype=torch.long)
        watches = [part.register_forward_pre_hook(self._note(name)) for name, part in self.host.named_modules()]
        vars(self.host)["forward"] = forward
        try:
            self.model(input_ids=ids, attention_mask=torch.ones_like(ids))
        finally:
            del vars(self.host)["forward"]
            for watch in watches:
                watch.remove()
        self.states = seen[0][0] if isinstance(seen[0], tuple) else seen[0]["last_hidden_state"]
        return seen[0]

    def cache(self) -> Any:
        """An empty cache after the host filled it."""
        cache = new_cache(self.host)

        def filled(base: Callable[..., Any], **call: Any) -> Any:
            return base(**call | {"past_key_values": cache, "use_cache": True})

        with in_words(self.host, "a cache"):
            self.run(filled)
        return cache

    def _note(self, name: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            self.called.add(name)

        return note


def arguments(host: "nn.Module") -> set[str]:
    """The names of the arguments of a host's forward."""
    from inspect import signature

    return set(signature(host.forward).parameters)


def refusal(host: "nn.Module", why: str) -> ModelError:
    """The refusal of an architecture."""
    return ModelError("virtual-host", f"{type(host).__name__} {why}", "use another method, such as lora")


@contextmanager
def in_words(host: "nn.Module", what: str) -> Iterator[None]:
    """What a forward raises within the block, as a refusal."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise refusal(host, f"does not run with {what}: {reason}") from None


def leaf(*shape: int) -> Any:
    """A parameter of the rehearsal."""
    import torch

    return torch.nn.Parameter(torch.empty(*shape, device="meta"))


def _plain(model: "nn.Module", module: "VirtualTokens") -> Seen:
    """A run without virtual tokens: in the base's precision or, as some products have no other form, in half."""
    import torch

    for precision in (next(module.host.parameters()).dtype, torch.bfloat16):
        seen = Seen(model.to(precision), module.site.path)
        with suppress(Exception) if precision != torch.bfloat16 else nullcontext():
            seen.run()
            break
    return seen


def _check_call(module: "VirtualTokens", seen: Seen) -> None:
    """Refuse a host that gets what somebody counted who does not know of virtual tokens."""
    outside = type(module.model).__name__
    if isinstance(seen.call.get("attention_mask"), dict):
        raise refusal(module.host, f"gets finished masks from {outside}, which virtual tokens have no place in")
    if seen.call.get("position_ids") is not None:
        raise refusal(module.host, f"gets positions from {outside}, which counts the text without virtual tokens")


def _followed(states: Any, leaves: "list[Tensor]") -> bool:
    """Whether the states were computed with a leaf; not each, as some models follow only the last of their rounds."""
    import torch

    if not states.requires_grad:
        return False
    try:
        gradients = torch.autograd.grad(states.float().sum(), leaves, allow_unused=True)
    except Exception:  # a backward that needs values, or another precision
        return True
    return any(gradient is not None for gradient in gradients)


def _check_tables(module: "VirtualTokens", seen: Seen, again: Seen) -> None:
    """Refuse what looks the ids up elsewhere, too: virtual tokens have none, and the text's are not to be passed on."""
    from torch import nn

    for name in sorted(seen.called - again.called):
        part = seen.host.get_submodule(name)
        if isinstance(part, nn.Embedding) and part is not seen.host.get_input_embeddings():  # type: ignore[operator]
            raise refusal(module.host, f"looks tokens up by their ids in {name}, too, where virtual ones have no row")


@contextmanager
def _watched(mask: Any) -> Iterator[list[str]]:
    """What was computed with a tensor within the block."""
    from torch.overrides import TorchFunctionMode

    found: list[str] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = getattr(func, "__name__", "")
            if name != "__get__" and any(value is mask for value in (*args, *(kwargs or {}).values())):
                found.append(name)
            return func(*args, **(kwargs or {}))

    with Watch():
        yield found
