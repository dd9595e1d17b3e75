"""A cell of the memory plan's matrix: one setting, its model, and what the plan says and the steps take of memory."""

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import resident
import torch
import transformers
from accelerate import Accelerator
from transformers import AutoTokenizer

import llmad
from llmad import budget, pretrained, recompute, train
from llmad.batching import Batching, batching
from llmad.data import Example
from llmad.recipe import Recipe
from llmad.schedule import Schedule
from llmad.source import find
from llmad.usage import measured


@dataclass(frozen=True)
class Cell:
    """A setting.

    Attributes:
        model: the embedded one by name, or `FAMILY:WIDTHxBLOCKSxVOCABULARY` of random weights.
        method: the adapter's spec.
        dtype: of the base.
        quantize: the quantizer of its linear maps, or `no`.
        rows: of a forward pass.
        length: of the longest row, in tokens.
        stand: packed or padded.
        again: whether blocks are computed again, yes or no.
        learnt: half of each row, or all of it.
        times: forward passes of an optimizer step.
        steps: optimizer steps; the second one finds the optimizer's state there.
        threads: torch's.
    """

    model: str = "abacus"
    method: str = "lora"
    dtype: str = "float32"
    quantize: str = "no"
    rows: int = 4
    length: int = 64
    stand: str = "packed"
    again: str = "no"
    learnt: str = "half"
    times: int = 1
    steps: int = 2
    threads: int = 1

    @property
    def told(self) -> str:
        """It in words, as a row of a table."""
        others = [
            f"{one.name}={getattr(self, one.name)}"
            for one in fields(self)
            if one.name in ("learnt", "times", "steps", "threads") and getattr(self, one.name) != one.default
        ]
        base = self.dtype if self.quantize == "no" else self.quantize
        own = (self.model, self.method, base, f"{self.rows} x {self.length}", self.stand, self.again, " ".join(others))
        return " | ".join(own)


def _llama(width: int, blocks: int, words: int) -> Any:
    sizes = {"hidden_size": width, "intermediate_size": width * 8 // 3 // 32 * 32, "num_hidden_layers": blocks}
    return transformers.LlamaConfig(vocab_size=words, num_attention_heads=width // 32, **sizes)


def _mixtral(width: int, blocks: int, words: int) -> Any:
    heads = {"num_attention_heads": width // 32, "num_key_value_heads": width // 64}
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": blocks, "num_local_experts": 4}
    return transformers.MixtralConfig(vocab_size=words, **heads, **sizes)


def _gemma(width: int, blocks: int, words: int) -> Any:
    heads = {"num_attention_heads": width // 64, "num_key_value_heads": 1, "head_dim": 64}
    sizes = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": blocks}
    return transformers.Gemma2Config(vocab_size=words, **heads, **sizes)


def _opt(width: int, blocks: int, words: int) -> Any:
    sizes = {"ffn_dim": 4 * width, "num_hidden_layers": blocks, "word_embed_proj_dim": width}
    return transformers.OPTConfig(vocab_size=words, hidden_size=width, num_attention_heads=width // 64, **sizes)


def _phi(width: int, blocks: int, words: int) -> Any:
    sizes = {"intermediate_size": 4 * width, "num_hidden_layers": blocks}
    return transformers.PhiConfig(vocab_size=words, hidden_size=width, num_attention_heads=width // 64, **sizes)


FAMILIES: dict[str, Callable[[int, int, int], Any]] = {
    "llama": _llama,
    "mixtral": _mixtral,
    "gemma": _gemma,
    "opt": _opt,
    "phi": _phi,
    "gpt2": lambda width, blocks, words: transformers.GPT2Config(
        vocab_size=words, n_embd=width, n_head=width // 64, n_layer=blocks
    ),
    "bloom": lambda width, blocks, words: transformers.BloomConfig(
        vocab_size=words, hidden_size=width, n_head=width // 64, n_layer=blocks
    ),
}


HOLD_OUT = [
    Cell("gpt2:384x3x50257", rows=3, length=36),
    Cell("gpt2:384x3x1000", "lora[r=64,sites=linear]", rows=16, length=30, stand="padded"),
    Cell("opt:640x2x1000", "series", rows=3, length=60, again="yes"),
    Cell("opt:384x3x50257", "prompt", rows=1, length=48),
    Cell("bloom:384x3x1000", "prefix", rows=16, length=24),
    Cell("bloom:640x2x1000", "lora", "bfloat16", rows=3, length=12),
    Cell("phi:640x3x1000", "ia3", rows=16, length=36, learnt="all"),
    Cell("phi:384x3x50257", "parallel", rows=3, length=36, again="yes", times=2),
    Cell("mixtral:384x2x1000", "lora", rows=16, length=24),
    Cell("mixtral:384x2x1000", "lora[r=32]", rows=3, length=40, again="yes"),
    Cell("gemma:640x2x50000", "lora", rows=3, length=36),
    Cell("llama:384x4x1000", "series", rows=16, length=48, again="yes", steps=6),
    Cell("llama:640x4x1000", "lora", quantize="nf4", rows=3, length=24),
    Cell("llama:640x4x1000", "lora", quantize="int8", rows=16, length=12),
    Cell("abacus", "lora[r=2]", rows=3, length=90, steps=12, threads=2),
    Cell("abacus", "prefix", rows=16, length=50, steps=6, stand="padded"),
]


def figures(cell: Cell) -> dict[str, Any]:
    """What the plan says beyond the loaded model, and what the steps take, in bytes."""
    warnings.simplefilter("ignore")
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(cell.threads)
    model = llmad.attach(made(cell), cell.method)
    if cell.again == "yes":
        recompute.enable(model)
    examples = rows(cell)
    asked = {"per_device_train_batch_size": cell.rows, "gradient_accumulation_steps": cell.times}
    ways = {"max_steps": cell.steps, "gradient_checkpointing": cell.again == "yes"}
    recipe = Recipe(backbone="none", adapter=cell.method, task="none", **asked, **ways)
    schedule = Schedule(recipe, tuple(len(row.ids) for row in examples), 1e-3)
    how = batching(model, 0, cell.stand == "packed")
    adam, scaler = train.optimizer(dict(llmad.parameters(model)), recipe), train.loss_scaler(model)
    measured(model, how, examples[:1])  # what the libraries keep for themselves is there before
    plan = budget.estimate(model, how, schedule, examples)
    trainee = train.Trainee(schedule, examples, adam, scaler)
    there = sum(part.bytes for part in plan.parts if part.name in ("weights", "adapter"))
    said = {key: getattr(plan, key) - there for key in ("lower", "predicted", "upper")}
    return {**said, "way": plan.way, "measured": rise(model, trainee, how)}


def made(cell: Cell) -> Any:
    """The cell's model on the CPU."""
    if ":" not in cell.model:
        return pretrained.load(cell.model, cell.dtype, quantize=_quantizer(cell)).model
    family, _, shape = cell.model.partition(":")
    torch.manual_seed(0)
    config = FAMILIES[family](*map(int, shape.split("x")))
    model = transformers.AutoModelForCausalLM.from_config(config).to(getattr(torch, cell.dtype))
    if cell.quantize == "no":
        return model
    with tempfile.TemporaryDirectory() as folder:
        AutoTokenizer.from_pretrained(str(find("abacus"))).save_pretrained(folder)
        model.save_pretrained(folder)
        return pretrained.load(folder, cell.dtype, quantize=cell.quantize).model


def _quantizer(cell: Cell) -> str | None:
    return None if cell.quantize == "no" else cell.quantize


def rows(cell: Cell) -> list[Example]:
    """Rows of several lengths, enough for every step."""
    longest, count = cell.length, cell.steps * cell.times * cell.rows
    lengths = [longest - number % (longest // 3) for number in range(count)]
    learnt = 2 if cell.learnt == "half" else longest + 1
    return [Example(tuple(range(5, 5 + n)), tuple(place > n // learnt for place in range(n))) for n in lengths]


def rise(model: Any, trainee: train.Trainee, how: Batching) -> int:
    """Bytes that the resident set rises by while the steps are taken."""
    device = Accelerator(cpu=True)
    resident.give_back()
    before = resident.start()
    for _ in train.fit(model, [trainee], how, device):
        pass
    return resident.peak() - before
