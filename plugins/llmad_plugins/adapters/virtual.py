"""Virtual tokens: the modules of the methods that put learned vectors before every text.

There are two kinds: embeddings in the sequence (`sequence_tokens`), and key/value pairs in the cache (`cache_pairs`).
Either kind is the module's own affair: it lengthens the mask, shifts the positions, acts on the first call, leaves the
cache alone on later ones, and takes itself out of the outputs again. In a row that the adapter is not for, its tokens
are masked out and no position is shifted. Padding on the left stays on the left: some models count how far a key is
away, and states forget over padding. Where several stand in front of one text, the keys are in this order:

    padding; pairs of the inner adapter, pairs of the outer; tokens of the inner, tokens of the outer; text

What an architecture has no room for is found in a rehearsal (`rehearsal`), and refused before anything is attached.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from threading import local
from typing import TYPE_CHECKING, Any

from llmad import AdapterModule, ModelError
from llmad_plugins.adapters.memory import Held, cached, has_index, held, hold, new_cache
from llmad_plugins.adapters.rehearsal import Seen, arguments, refusal, rehearse

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Outer:
    """What outer adapters did before an inner one.

    Attributes:
        pairs: how many pairs they have put into the cache.
        moved: how far each row's positions moved for these.
        start: where the text begins in each row, behind its padding; None where no adapter is outside.
    """

    pairs: int = 0
    moved: "int | Tensor" = 0
    start: "int | Tensor | None" = None


class _Calls(local):
    """The calls that go on in a thread; no context variable, which torch.compile cannot trace."""

    outer = Outer()


_CALLS = _Calls()


def outer() -> Outer:
    """What is outside of the module that is called."""
    return _CALLS.outer


class VirtualTokens(AdapterModule):
    """`count` virtual tokens before the text; the stack's output is as if they were not there."""

    whole_call = True
    kind = ""  # in words, for refusals
    tokens: "nn.Parameter"
    masked = True  # whether the base hides what a mask says
    chooses = mixes = False  # whether an index chooses what is attended to; whether there are mixers
    movable = True  # whether each row's positions can be told to the base, if it has any
    origin = 0  # the position of a text's first token

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = self.tokens_before = count

    def virtual(self) -> "Tensor":
        """What is learned, (count, ...): a parameter, or what an encoder makes."""
        return self.tokens

    def cast(self, dtype: "torch.dtype") -> "Tensor":
        """What is learned in the base's dtype; an encoder computes in that of its own weights."""
        import torch

        device = next(self.parameters()).device.type
        if not torch.amp.is_autocast_available(device):  # the meta device
            return self.virtual().to(dtype)
        with torch.autocast(device, enabled=False):
            return self.virtual().to(dtype)

    def begin(self) -> None:
        """Refuse an architecture that has no room for them."""
        from llmad import sites

        there = arguments(self.host)
        if "past_key_values" in there and "use_cache" not in there:
            raise refusal(self.host, "is one of several stacks that share a cache, and virtual tokens go before all")
        tables = [(name, part) for name, part in self.host.named_modules() if _is_position_table(name, part)]
        self.origin = next((part.padding_idx + 1 for _, part in tables if part.padding_idx is not None), 0)
        self.movable = "position_ids" in there or not tables
        self.mixes = any(site.role == "mixer" for site in sites(self.model))
        self.chooses = "past_key_values" in there and has_index(new_cache(self.host))
        rehearse(self)

    def prepare(self, seen: Seen) -> None:
        """Learn from what the base did without them; by default whether it looks at the mask."""
        self.masked = seen.masked

    def understudy(self) -> "tuple[VirtualTokens, list[Tensor]]":
        """A module of the same kind for the rehearsal, and its parameters."""
        raise NotImplementedError

    def place(self, start: "int | Tensor") -> "int | Tensor":
        """The number of keys before the module's own, (batch, 1), where the text starts so far behind padding."""
        raise NotImplementedError

    def within(self, base: Callable[..., Any], call: dict[str, Any], first: bool, start: "int | Tensor") -> Any:
        """Call the base with the virtual tokens in it: where the text starts, or in the cache on later calls."""
        raise NotImplementedError

    def of_text(self, states: "Tensor", start: "int | Tensor") -> "Tensor":  # noqa: ARG002
        """The rows (batch, length, ...) of the text among those of a first call's sequence; by default all."""
        return states

    def forward(self, base: Callable[..., Any], rows: "Tensor | None" = None, **call: Any) -> Any:
        """The stack's output for the text alone; `rows` (batch,) says which rows have the virtual tokens."""
        known, width = cached(call), text(call).shape[1]
        first = known == outer().pairs  # nothing is remembered but the pairs of outer adapters
        own = Held(self.count, width) if first else held(call, self)
        self._check(call, rows, None if known is None else known + width - (0 if first else self.count))
        mask, positions, shift = call.get("attention_mask"), call.get("position_ids"), self._shift(rows, call)
        if mask is None and rows is not None:
            mask = self._ones(call, rows, known, width, first)
        if positions is None and takes("position_ids", self.host):
            positions = self._counted(call, mask, known, first)
        start = _start(mask, own.first if own else width)
        if self.chooses and not isinstance(start, int):
            why = f"{type(self.host).__name__} chooses what it attends to by an index, which counts padding on the left"
            raise ModelError("virtual-mask", why, "give the rows one by one, without padding")
        if mask is not None:
            virtual = mask.new_ones(mask.shape[0], self.count)
            virtual = virtual if rows is None else virtual * rows.to(mask)[:, None]
            call["attention_mask"] = weave(virtual, mask, self.place(start))
        if positions is not None:
            call["position_ids"] = positions + shift
        by_name = self._asked("return_dict", call)
        call |= {"return_dict": True} if takes("return_dict", self.host, open_ended=True) else {}
        before, _CALLS.outer = outer(), self.passed_on(replace(outer(), start=start), shift)
        try:
            output = self.within(base, call, first, start)
        finally:
            _CALLS.outer = before
        if first:
            hold(output, self, width)
        whole = self._text_alone(output, start, first)
        return whole if by_name else whole.to_tuple()

    def passed_on(self, known: Outer, shift: "int | Tensor") -> Outer:  # noqa: ARG002
        """What an inner adapter is to know."""
        return known

    def _asked(self, option: str, call: Mapping[str, Any]) -> bool:
        """What the call says, or else the base's config."""
        said = call.get(option)
        return bool(getattr(self.host.config, option, False) if said is None else said)

    def _shift(self, rows: "Tensor | None", call: dict[str, Any]) -> "int | Tensor":
        """How far the positions of the text move: a number, or (batch, 1)."""
        return self.count if rows is None else (rows.to(text(call).device) * self.count).unsqueeze(1)

    def _counted(self, call: dict[str, Any], mask: "Tensor | None", known: int | None, first: bool) -> "Tensor | None":
        """The positions of the text, (batch or 1, length): no gap where padding is on the left; None if unknown."""
        import torch

        width = text(call).shape[1]
        if mask is not None:
            return (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -width:] + self.origin
        virtual = known if first else held(call)
        if known is None or virtual is None:
            return None
        return torch.arange(known - virtual, known - virtual + width, device=text(call).device)[None] + self.origin

    def _ones(self, call: dict[str, Any], rows: "Tensor", known: int | None, width: int, first: bool) -> "Tensor":
        """The mask of a text without padding, (batch, length), which some of the rows need."""
        import torch

        virtual = 0 if first else held(call)
        if known is None or virtual is None:
            raise ModelError(
                "virtual-mask",
                "virtual tokens for some rows of a batch need the mask of a text that goes on from this cache",
                "give attention_mask, over the cached and the new tokens",
            )
        return text(call).new_ones((rows.shape[0], known + width - virtual), dtype=torch.int64)

    def _text_alone(self, output: Any, start: "int | Tensor", first: bool) -> Any:
        """Take the virtual tokens out of whatever the stack returned."""

        def alone(states: "Tensor") -> "Tensor":
            return self.of_text(states, start) if first else states

        def attention(weights: "Tensor") -> "Tensor":  # (batch, heads, queries, keys)
            keys = without(weights.transpose(1, 3), self.count, self.place(start))
            return alone(keys.transpose(1, 2)).permute(0, 3, 1, 2)

        fields = dict(output)
        fields["last_hidden_state"] = alone(fields["last_hidden_state"])
        if fields.get("hidden_states") is not None:
            fields["hidden_states"] = tuple(alone(states) for states in fields["hidden_states"])
        if fields.get("attentions") is not None:
            every = fields["attentions"]
            fields["attentions"] = tuple(None if weights is None else attention(weights) for weights in every)
        return type(output)(**fields)

    def _check(self, call: Mapping[str, Any], rows: "Tensor | None", length: int | None) -> None:
        """Refuse what would silently attend to the wrong places; `length` is that of the cached and the new text."""
        mask, positions = call.get("attention_mask"), call.get("position_ids")
        if rows is not None and not self.masked:
            raise ModelError(
                "virtual-mask",
                f"{type(self.host).__name__} has no mask that could hide virtual tokens from some rows of a batch",
                _APART,
            )
        if rows is not None and (own := sorted(_OWN_MASKS & arguments(self.host))):
            why = f"{type(self.host).__name__} makes masks of its own (of {own[0]}), which virtual tokens are not in"
            raise ModelError("virtual-mask", why, _APART)
        if rows is not None and self.chooses:
            why = f"{type(self.host).__name__} chooses what it attends to by an index, which counts virtual tokens too"
            raise ModelError("virtual-mask", why, _APART)
        if rows is not None and self.mixes:
            why = f"{type(self.host).__name__} has mixers, whose states would have the virtual tokens in every row"
            raise ModelError("virtual-mask", why, _APART)
        if rows is not None and not self.movable:
            why = f"{type(self.host).__name__} counts the positions of all rows alike, with virtual tokens or without"
            raise ModelError("virtual-mask", why, _APART)
        if mask is not None and mask.dim() != 2:
            raise ModelError("virtual-mask", "virtual tokens need a mask of (batch, length)", "use a dynamic cache")
        if mask is not None and length is not None and mask.shape[1] > length:  # other adapters filled the cache
            raise ModelError(
                "virtual-cache",
                f"the mask covers {mask.shape[1]} tokens, the text and its cache hold {length}",
                "do not hand a cache to other adapters than those that it was filled with",
            )
        if mask is None and positions is not None:
            _check_counted(positions)


_OWN_MASKS = {"langs", "perm_mask", "pixel_values"}  # XLM, XLNet, GIT
_APART = "give the rows with the adapter and those without in separate calls"


def _check_counted(positions: "Tensor") -> None:
    """Refuse positions that begin again within a row; what is compiled can ask no tensor, and stops while it runs."""
    import torch

    again = (positions.diff(dim=-1) < 0).any()
    why = "virtual tokens cannot stand before each of several texts in one row"
    if torch.compiler.is_compiling():
        torch._assert_async(~again, why)
    elif again:
        raise ModelError("virtual-packed", why, "give every text a row of its own")


def _is_position_table(name: str, part: Any) -> bool:
    return "position" in name.rpartition(".")[2] and hasattr(part, "num_embeddings")


def _start(mask: "Tensor | None", first: int) -> "int | Tensor":
    """Where the text starts behind the padding, (batch, 1), of which a first call of that width had so much."""
    import torch

    if (known := outer().start) is not None:
        return known
    if mask is None:
        return 0
    start = (mask[:, :first].cumsum(-1) == 0).sum(-1, keepdim=True)
    return start if torch.compiler.is_compiling() or bool(start.any()) else 0


def text(call: Mapping[str, Any]) -> "Tensor":
    """The call's embeddings or, where there are none, its ids: (batch, length, ...)."""
    given: Tensor = call["inputs_embeds"] if call.get("inputs_embeds") is not None else call["input_ids"]
    return given


def embedding(stack: "nn.Module") -> "nn.Embedding":
    """The table of the vocabulary.

    Raises:
        ModelError: the stack is a stranger's module, which does not say where it is.
    """
    if not hasattr(stack, "get_input_embeddings"):
        raise refusal(stack, "does not say where its token embedding is (get_input_embeddings)")
    table: nn.Embedding = stack.get_input_embeddings()  # type: ignore[operator]
    return table


def weave(virtual: "Tensor", own: "Tensor", place: "int | Tensor") -> "Tensor":
    """(batch, count, ...) and (batch, length, ...) to (batch, count + length, ...): the one at a place in the other."""
    import torch

    if isinstance(place, int):
        return torch.cat((own[:, :place], virtual, own[:, place:]), dim=1)
    count = virtual.shape[1]
    number = torch.arange(count + own.shape[1], device=own.device)
    after = torch.where(number < place + count, number - place, number)
    return _pick(torch.cat((virtual, own), dim=1), torch.where(number < place, number + count, after))


def without(whole: "Tensor", count: int, place: "int | Tensor") -> "Tensor":
    """The inverse of `weave`: what is left when `count` at a place are taken out."""
    import torch

    if isinstance(place, int):
        return torch.cat((whole[:, :place], whole[:, place + count :]), dim=1)
    number = torch.arange(whole.shape[1] - count, device=whole.device)
    return _pick(whole, torch.where(number < place, number, number + count))


def _pick(whole: "Tensor", numbers: "Tensor") -> "Tensor":
    """The entries of these numbers, (batch, length), of (batch, any, ...)."""
    shape = (*numbers.shape, *whole.shape[2:])
    return whole.gather(1, numbers.reshape(*numbers.shape, *[1] * (whole.dim() - 2)).expand(shape))


def takes(argument: str, stack: "nn.Module", open_ended: bool = False) -> bool:
    """Whether the forward of a stack has an argument of that name, or takes any if that will do."""
    from inspect import signature

    there = signature(stack.forward).parameters
    return argument in there or (open_ended and "kwargs" in there)
