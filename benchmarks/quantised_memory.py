"""Memory of one LoRA training step on plain and quantised bases: a LLaMA of random weights, loaded by llmad.

    python benchmarks/quantised_memory.py                # 288 million parameters, one row of 16 tokens
    python benchmarks/quantised_memory.py --layers 4     # smaller

Every arm is a fresh process. Its memory is the resident set (`VmRSS`, and its high-water mark `VmHWM`) less what it was
after the imports; the mark is set back between loading and the step. Loading is left out, since the pages of the mapped
file count as resident then; the folder holds float32, so that no arm but the first keeps it mapped.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import resident

ARMS = {  # dtype, quantizer
    "float32": ("float32", None),
    "bfloat16": ("bfloat16", None),
    "int8": ("bfloat16", "int8"),
    "nf4": ("bfloat16", "nf4"),
}


def main() -> None:
    """Make the folder, run the arms, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=16, help="blocks of 16.8 million weights")
    parser.add_argument("--tokens", type=int, default=16, help="length of the row")
    parser.add_argument("--arm", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(measure(*options.arm, options.tokens)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), options.layers)
        command = [sys.executable, __file__, "--tokens", str(options.tokens), "--arm"]
        settings = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}  # freed tensors go back to the system at once
        found = {}
        for name in ARMS:
            run = subprocess.run([*command, name, folder], check=True, capture_output=True, env=settings)
            found[name] = json.loads(run.stdout)
    print("| base | parameters | held after loading | peak of the step | seconds a step | loss |")
    print("|---|---|---|---|---|---|")
    for name, row in found.items():
        sizes = (f"{row[key]:,.0f} MB ({row[key] / found['float32'][key]:.2f})" for key in ("held", "step"))
        print(f"| {name} | {row['parameters']:,} | {' | '.join(sizes)} | {row['seconds']:.1f} | {row['loss']:.3f} |")


def make(folder: Path, layers: int) -> None:
    """Write a LLaMA of random weights in float32, with the embedded backbone's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from llmad.source import find

    tokenizer = AutoTokenizer.from_pretrained(str(find("abacus")))
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": layers}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8192, **sizes))
    model.save_pretrained(folder)


def measure(name: str, folder: str, tokens: int) -> dict[str, Any]:
    """Load, train one step; megabytes above what the imports took."""
    import bitsandbytes  # noqa: F401  part of the imports in every arm
    import torch
    from transformers import LlamaForCausalLM  # noqa: F401  as above

    import llmad
    from llmad import pretrained
    from llmad.plan import summary

    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # the first one imports more
    dtype, quantizer = ARMS[name]
    start = resident.now()
    model = pretrained.load(folder, dtype, quantize=quantizer).model
    for parameter in model.parameters():
        parameter.detach().flatten()[::1024].float().sum()  # plain weights may be mapped from the file, not read yet
    resident.give_back()  # what was freed and is kept for later use is not held
    held = resident.start() - start

    llmad.attach(model, "lora[sites=linear]").train()
    adam = torch.optim.AdamW([value for _, value in llmad.parameters(model)], lr=1e-4)
    ids = torch.randint(0, 8192, (1, tokens), generator=torch.Generator().manual_seed(0))
    began = time.perf_counter()
    loss = model(ids, labels=ids, use_cache=False).loss
    loss.backward()
    adam.step()
    return {
        "parameters": summary(model).total_parameters,
        "held": held / 1e6,
        "step": (resident.peak() - start) / 1e6,
        "seconds": time.perf_counter() - began,
        "loss": loss.item(),
    }


if __name__ == "__main__":
    main()
