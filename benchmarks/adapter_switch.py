"""Time to attach, load, switch and detach LoRA at 160 linear maps: llmad beside PEFT.

    python benchmarks/adapter_switch.py
    python benchmarks/adapter_switch.py --pairs 31

One process, one thread, a LLaMA of 32 narrow layers with random weights, so that it is bookkeeping that is timed and
not arithmetic. The arms take turns, the first of each pair too; a pair's ratio is llmad's time over PEFT's, and the
table has the median of the ratios with their quartiles. Both read the same adapter directory. As in `timeit`, the
garbage collector runs between the timings only.
"""

import argparse
import copy
import gc
import tempfile
import time
import warnings
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

import llmad

LAYERS, RANK, SWITCHES = 32, 8, 20
PLACES = {"attn.q": "q_proj", "attn.k": "k_proj", "attn.v": "v_proj", "mlp.up": "up_proj", "mlp.down": "down_proj"}
SPEC = f"lora[r={RANK},alpha=16,sites={'+'.join(PLACES)}]"
Times = dict[str, float]  # what was done, to its seconds


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=21, help="how often each arm is timed")
    pairs = parser.parse_args().pairs
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # PEFT's, about several adapters
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 256}
    base = LlamaForCausalLM(LlamaConfig(num_hidden_layers=LAYERS, **sizes)).eval()
    with tempfile.TemporaryDirectory() as folder:
        llmad.save(llmad.attach(copy.deepcopy(base), SPEC), folder)
        arms = {"llmad": time_llmad, "peft": time_peft}
        for arm in arms.values():  # what is imported or cached on first use is not timed
            arm(copy.deepcopy(base), folder)
        found: dict[str, list[Times]] = {name: [] for name in arms}
        for pair in range(pairs):
            for name in sorted(arms, reverse=bool(pair % 2)):
                found[name].append(arms[name](copy.deepcopy(base), folder))
    show(found["llmad"], found["peft"])


def time_llmad(model: Any, folder: str) -> Times:
    """Every operation once, on a model of its own."""
    attach = timed(lambda: llmad.attach(model, SPEC))
    check(model)
    detach = timed(lambda: llmad.detach(model))
    load = timed(lambda: llmad.load(model, folder, "a"))
    llmad.load(model, folder, "b")
    switch = timed(lambda: [llmad.activate(model, name) for name in "ab" * (SWITCHES // 2)])
    return {"attach": attach, "load": load, "switch": switch / SWITCHES, "detach": detach}


def time_peft(model: Any, folder: str) -> Times:
    """The same with PEFT."""
    config = LoraConfig(r=RANK, lora_alpha=16, target_modules=list(PLACES.values()))
    made: list[Any] = []
    attach = timed(lambda: made.append(get_peft_model(model, config)))
    check(made[0])
    detach = timed(lambda: made.append(made[0].unload()))
    fresh = made[1]
    vars(fresh).pop("peft_config", None)
    load = timed(lambda: made.append(PeftModel.from_pretrained(fresh, folder, "a")))
    loaded = made[2]
    loaded.load_adapter(folder, "b")
    switch = timed(lambda: [loaded.set_adapter(name) for name in "ab" * (SWITCHES // 2)])
    return {"attach": attach, "load": load, "switch": switch / SWITCHES, "detach": detach}


def check(model: torch.nn.Module) -> None:
    """Both arms make the same adapter."""
    sizes = {"q_proj": (64, 64), "k_proj": (64, 64), "v_proj": (64, 64), "up_proj": (64, 128), "down_proj": (128, 64)}
    wanted = LAYERS * RANK * sum(sum(sizes[name]) for name in PLACES.values())
    trained = sum(own.numel() for own in model.parameters() if own.requires_grad)
    assert trained == wanted, f"{trained} parameters are trained, not {wanted}"


def timed(action: Callable[[], object]) -> float:
    """Seconds, with the garbage collector off as in `timeit`."""
    gc.collect()
    gc.disable()
    began = time.perf_counter()
    action()
    seconds = time.perf_counter() - began
    gc.enable()
    return seconds


def show(ours: list[Times], theirs: list[Times]) -> None:
    """One row an operation."""
    print("| operation | llmad ms | PEFT ms | ratio | quartiles |\n|---|---|---|---|---|")
    for name in ours[0]:
        one, other = ([1000 * times[name] for times in arm] for arm in (ours, theirs))
        low, middle, high = quantiles([mine / peer for mine, peer in zip(one, other, strict=True)], n=4)
        print(f"| {name} | {median(one):.3f} | {median(other):.3f} | {middle:.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
