"""Virtual tokens as embeddings in the sequence, right before those of the text."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from llmad_plugins.adapters.rehearsal import arguments, leaf, refusal
from llmad_plugins.adapters.virtual import VirtualTokens, embedding, outer, takes, text, weave, without

if TYPE_CHECKING:
    from torch import Tensor


class SequenceTokens(VirtualTokens):
    """Virtual tokens (count, width) before the embeddings of the text."""

    kind = "embeddings"

    def begin(self) -> None:
        """Refuse what reads more of a text than one embedding for each token."""
        from torch import nn

        if not isinstance(embedding(self.host), nn.Embedding):
            raise refusal(self.host, "has several tables of embeddings, and a virtual token is a row of one")
        if "inputs_embeds" not in arguments(self.host):
            raise refusal(self.host, "takes ids alone and no embeddings (inputs_embeds) in their place")
        super().begin()

    def understudy(self) -> "tuple[VirtualTokens, list[Tensor]]":
        """Embeddings without values."""
        there = SequenceTokens(self.count)
        there.tokens = leaf(self.count, self.site.out_features)
        return there, [there.tokens]

    def place(self, start: "int | Tensor") -> "int | Tensor":
        """Behind the padding and the pairs of outer adapters."""
        return start + outer().pairs

    def forward(self, base: Callable[..., Any], rows: "Tensor | None" = None, **call: Any) -> Any:
        """The stack's output for the text alone; the virtual tokens stand before each of packed rows."""
        from llmad import packed_rows

        packed = packed_rows()
        if packed is None or outer().pairs:
            return super().forward(base, rows, **call)
        here = [True] * len(packed.text) if rows is None else rows.tolist()
        coming = packed.lengthen(self, tuple(self.count * mine for mine in here))
        return self._before_each(base, coming, here, call)

    def _before_each(
        self, base: Callable[..., Any], lengths: tuple[int, ...], here: list[bool], call: dict[str, Any]
    ) -> Any:
        """Call the base with the virtual tokens before some of the rows (1, total, ...), and take them out again."""
        import torch

        def woven(virtual: "Tensor", own: "Tensor") -> "Tensor":
            rows = zip(cast(Any, own).split(lengths, dim=1), here, strict=True)
            return torch.cat([part for row, mine in rows for part in ((virtual, row) if mine else (row,))], dim=1)

        given = text(call) if call.get("inputs_embeds") is not None else embedding(self.host)(call["input_ids"])
        call |= {"input_ids": None, "inputs_embeds": woven(self.cast(given.dtype)[None], given)}
        if (mask := call.get("attention_mask")) is not None:
            call["attention_mask"] = woven(mask.new_ones(1, self.count), mask)
        if (places := call.get("position_ids")) is not None:
            counted = torch.arange(self.count, device=places.device)[None] + self.origin
            moved = torch.repeat_interleave(torch.tensor(here) * self.count, torch.tensor(lengths))
            call["position_ids"] = woven(counted, places + moved.to(places.device))
        for name in PER_TOKEN:
            if isinstance(values := call.get(name), torch.Tensor):
                call[name] = woven(values.new_zeros(1, self.count), values)
        output = base(**call)
        kept = woven(torch.ones(1, self.count), torch.zeros(1, sum(lengths)))[0] == 0
        output["last_hidden_state"] = output["last_hidden_state"][:, kept.to(given.device)]
        return output

    def within(self, base: Callable[..., Any], call: dict[str, Any], first: bool, start: "int | Tensor") -> Any:
        """On the first call they go into the sequence; later their keys are in the cache."""
        import torch

        if not first:
            return base(**call)
        given = text(call) if call.get("inputs_embeds") is not None else embedding(self.host)(call["input_ids"])
        own = self.cast(given.dtype).expand(given.shape[0], -1, -1)
        call |= {"input_ids": None, "inputs_embeds": weave(own, given, start)}
        if (positions := call.get("position_ids")) is not None:
            counted = torch.arange(self.count, device=positions.device) + self.origin + outer().moved
            alike = isinstance(start, int) and positions.shape[-2] == 1 and counted.dim() == 1
            alike = alike and not takes("langs", self.host)  # XLM wants the positions of every row
            call["position_ids"] = _positions(counted, positions, 1 if alike else given.shape[0], start)
        for name in PER_TOKEN:
            if isinstance(values := call.get(name), torch.Tensor):
                call[name] = weave(values.new_zeros(values.shape[0], self.count), values, start)
        return base(**call)

    def of_text(self, states: "Tensor", start: "int | Tensor") -> "Tensor":
        """Without those of the virtual tokens."""
        return without(states, self.count, start)


PER_TOKEN = ("token_type_ids", "langs", "mm_token_type_ids")  # other numbers that a text may have for each token


def _positions(counted: "Tensor", own: "Tensor", batch: int, start: "int | Tensor") -> "Tensor":
    """(..., batch, length) to (..., batch, count + length); several axes of positions are counted alike."""
    import torch

    axes = own.reshape(-1, *own.shape[-2:]).unbind(0)
    woven = [weave(counted.expand(batch, -1), axis.expand(batch, -1), start) for axis in axes]
    return torch.stack(woven).reshape(*own.shape[:-2], batch, -1)
