"""P-tuning: virtual tokens in front of every text, made by a small network.

    embeddings = [f(P); E(tokens)]        P (num_virtual_tokens, width)
    f(P) = MLP(P), three linears with ReLU between (`encoder=mlp`), or MLP(BiLSTM(P)), two linears (`encoder=lstm`)

Liu et al., 2021 (arXiv 2103.10385), section 3.2; the networks are PEFT's. P starts N(0, 1), the rest as torch's
layers do; the middle has `encoder_hidden_size`, by default the model's width, and twice that after the LSTM.
"""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from llmad import AdapterModule, AdapterSpec, Site, hookimpl
from llmad_plugins.adapters.sequence_tokens import SequenceTokens
from llmad_plugins.adapters.virtual_options import VirtualOptions

if TYPE_CHECKING:
    from torch import Tensor, nn


class PTuning(VirtualOptions):
    """Virtual tokens made by a small network (Liu et al., 2021).

    Attributes:
        encoder: the network.
        encoder_hidden_size: its width; the model's where None.
        encoder_num_layers: the layers of the LSTM.
        encoder_dropout: the share that is dropped between the LSTM's layers in training.
    """

    name = "p-tuning"
    peft_type = "P_TUNING"
    learning_rate: ClassVar[float] = 3e-5

    encoder: Literal["mlp", "lstm"] = "mlp"
    encoder_hidden_size: PositiveInt | None = None
    encoder_num_layers: PositiveInt = 2
    encoder_dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.encoder == "mlp" and (self.encoder_num_layers, self.encoder_dropout) != (2, 0.0):
            raise ValueError("encoder_num_layers and encoder_dropout are the LSTM's; the MLP has neither")
        if self.encoder_num_layers == 1 and self.encoder_dropout:
            raise ValueError("encoder_dropout is between the layers of the LSTM, and it has one")
        return self

    @property
    def encoded(self) -> bool:
        """A network makes the virtual tokens."""
        return True

    def build(self, site: Site) -> AdapterModule:
        """The network and what goes in."""
        return PTuningLayer(site.out_features, self)

    @classmethod
    def reads_peft(cls, config: object) -> bool:  # noqa: ARG003
        """PEFT's files hold the virtual tokens without the network."""
        return False


class PTuningLayer(SequenceTokens):
    """Puts (num_virtual_tokens, width) embeddings that its network makes before the embeddings of the text."""

    def __init__(self, width: int, spec: PTuning) -> None:
        from torch import nn

        super().__init__(spec.num_virtual_tokens)
        hidden = spec.encoder_hidden_size or width
        self.embedding = nn.Embedding(self.count, width)
        self.lstm_head: nn.RNNBase | None = None  # torch.compile does not follow an nn.LSTM, whose weights these are
        if spec.encoder == "lstm":
            layers, dropout = spec.encoder_num_layers, spec.encoder_dropout
            self.lstm_head = nn.RNNBase("LSTM", width, hidden, layers, dropout=dropout, bidirectional=True)
            self.mlp_head = nn.Sequential(nn.Linear(2 * hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, width))
        else:
            first, middle, last = nn.Linear(width, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, width)
            self.mlp_head = nn.Sequential(first, nn.ReLU(), middle, nn.ReLU(), last)

    def virtual(self) -> "Tensor":
        """The embeddings, (count, width)."""
        x = self.embedding.weight
        if self.lstm_head is not None:
            x = _both_ways(self.lstm_head, x)
        tokens: Tensor = self.mlp_head(x)
        return tokens


def _both_ways(own: "nn.RNNBase", x: "Tensor") -> "Tensor":
    """What an LSTM makes of (length, width): (length, 2 * hidden)."""
    import torch

    weights: list[Tensor] = [weight for layer in own.all_weights for weight in layer]
    start = x.new_zeros(2 * own.num_layers, 1, own.hidden_size)
    states = torch.lstm(
        x[:, None], (start, start), weights, True, own.num_layers, own.dropout, own.training, True, False
    )
    return states[0][:, 0]


@hookimpl
def llmad_adapters() -> list[type[AdapterSpec]]:
    """P-tuning."""
    return [PTuning]
