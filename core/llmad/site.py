"""A site: a place in a model where an adapter can sit, named the same way on every architecture."""

from dataclasses import asdict, dataclass
from typing import Any

MODULE_ROLES = ("model", "embed", "block", "attn", "mixer", "mlp", "head")
ATTENTION_ROLES = ("attn.q", "attn.k", "attn.v", "attn.o")
MIXER_ROLES = ("mixer.in", "mixer.out")  # of a block's part that mixes positions without queries, keys and values
MLP_ROLES = ("mlp.gate", "mlp.up", "mlp.down")
EXPERT_ROLES = ("expert.gate", "expert.up", "expert.down")
LINEAR_ROLES = (*ATTENTION_ROLES, *MIXER_ROLES, *MLP_ROLES, *EXPERT_ROLES)
ROLES = (*MODULE_ROLES, *LINEAR_ROLES)
QKV_ROLE = "attn.qkv"  # q, k and v where one linear makes them, as a whole
PATH_ROLE = "path"  # the role of a place that was chosen by its path and has no role of its own


@dataclass(frozen=True)
class Rows:
    """The output rows of a fused linear that belong to one role.

    The output, of width `groups * stride`, is read as `groups` blocks; the role owns
    `[start : start + length]` of each. BLOOM's `query_key_value`, for one, has a block for each head.
    """

    groups: int
    stride: int
    start: int
    length: int

    @property
    def size(self) -> int:
        """The number of rows, which is the role's `out_features`."""
        return self.groups * self.length

    def index(self) -> list[int]:
        """The rows, in order; their places in the weight's first dimension."""
        offsets = range(self.start, self.start + self.length)
        return [group * self.stride + offset for group in range(self.groups) for offset in offsets]


@dataclass(frozen=True)
class Stack:
    """One expert's matrix in a parameter that holds those of all experts, (experts, out_features, in_features).

    Attributes:
        parameter: the parameter's name in the module at the site's path.
        expert: which one.
        transposed: the parameter is (experts, in_features, out_features).
    """

    parameter: str
    expert: int
    transposed: bool = False


@dataclass(frozen=True)
class Site:
    """One place in a model.

    Attributes:
        path: the module's name in `model.named_modules()`.
        role: `attn.q`, `mlp.down`, `block`, ...; the same on every architecture.
        layer: index of the block, counted from 0; None outside the blocks.
        in_features: width of the hidden states that come in.
        out_features: width of the hidden states that go out.
        rows: the role's rows where the linear is fused; None where the whole output is the role's.
        before: the adapter transforms the place's input instead of its output; with `rows`, for these rows alone.
        residual: name of the argument that the place's module adds to its own output, if it does.
        stack: which matrix of a stacked parameter the place is; None where a module of its own holds it.
    """

    path: str
    role: str
    layer: int | None
    in_features: int
    out_features: int
    rows: Rows | None = None
    before: bool = False
    residual: str | None = None
    stack: Stack | None = None

    @property
    def label(self) -> str:
        """The place in words and in files: its path, with the role where it shares the path with others."""
        place = f"{self.path}.{self.stack.parameter}.{self.stack.expert}" if self.stack else self.path
        return place + (f"[{self.role}]" if self.rows else "") + ("@before" if self.before else "")

    @property
    def slot(self) -> str:
        """The key in the module's `adapters`: the role, as a valid module name; with the expert's number."""
        expert = f"_{self.stack.expert}" if self.stack else ""
        return self.role.replace(".", "_") + expert + ("_before" if self.before else "")

    @property
    def linear(self) -> bool:
        """Whether the place is a linear map (and not a whole part of the model)."""
        return self.role == "head" or self.role not in MODULE_ROLES

    def describe(self) -> dict[str, Any]:
        """The site as plain data, for JSON."""
        return asdict(self)
