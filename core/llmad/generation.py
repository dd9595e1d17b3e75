"""Generation: what ends a text, how its tokens are chosen, and how many of them there is room for."""

from typing import Any

from llmad import pretrained
from llmad.attachment import state
from llmad.pretrained import Pretrained

_POSITIONS = ("max_position_embeddings", "max_seq_len")  # what configs call how long a text may be


def ends(base: Pretrained) -> tuple[int, ...]:
    """The tokens that end a text: the tokenizer's, and those that the model names; chat models have several."""
    said = pretrained.generation_config(base.name).eos_token_id
    known = [base.tokenizer.eos_token_id, *(said if isinstance(said, list) else [said])]
    return tuple(end for end in dict.fromkeys(known) if end is not None)


def sampling(temperature: float) -> dict[str, Any]:
    """What `generate` is told: the likeliest token at 0, else one of all by its probability."""
    if temperature == 0:
        return {"do_sample": False, "num_beams": 1}
    return {"do_sample": True, "num_beams": 1, "temperature": temperature, "top_k": 0, "top_p": 1.0}


def room(model: Any, length: int, wanted: int) -> int:
    """How many tokens, at most `wanted`, may follow a question of so many; 0 where the model has no position left."""
    return max(0, min(wanted, positions(model, length + wanted) - length))


def positions(model: Any, wanted: int) -> int:
    """How long a text of `wanted` tokens may be: the model's positions, without those that acting adapters take up."""
    if (there := all_positions(model)) is None:
        return wanted
    own = state(model)
    acting = (module for stage in own.active for name in stage.names for module in own.adapters[name].modules.values())
    return max(0, min(wanted, there - sum(module.tokens_before for module in acting)))


def all_positions(model: Any) -> int | None:
    """How many positions a model has; None where it does not say."""
    found: int | None = next((own for key in _POSITIONS if (own := getattr(model.config, key, None)) is not None), None)
    return found
