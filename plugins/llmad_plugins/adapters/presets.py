"""Presets: settings of papers and of peers, by name."""

from llmad import Preset, hookimpl

# Hu et al., 2023 (arXiv 2304.01933), version 1, table 1, and the paper's code: no biases, tanh, N(0, 0.02).
_FIRST = "activation=tanh,bias=false,init=paper"
# Version 2, section 4.1 and table 2: the best placement of each method.
_SECOND = "activation=tanh,bias=false,init=paper,bottleneck=256"

PRESETS = [
    Preset("lora-paper", "lora[r=8,alpha=16,dropout=0.05,sites=attn.q+attn.v]", "LLM-Adapters' LoRA, table 1"),
    Preset(
        "s-adapter-h",
        f"series[bottleneck=256,sites=mlp.in@before+mlp.down,{_FIRST}]",
        "LLM-Adapters' series adapter after Houlsby et al., table 1",
    ),
    Preset(
        "s-adapter-p",
        f"series[bottleneck=768,sites=mlp.down,{_FIRST}]",
        "LLM-Adapters' series adapter after Pfeiffer et al., table 1",
    ),
    Preset("p-adapter", f"parallel[bottleneck=256,sites=attn.qkv,{_FIRST}]", "LLM-Adapters' parallel adapter, table 1"),
    Preset(
        "lora-paper-v2",
        "lora[r=32,alpha=64,dropout=0.05,sites=attn.q+attn.k+attn.v+mlp.up+mlp.down]",
        "LLM-Adapters' best LoRA, second version",
    ),
    Preset("series-paper-v2", f"series[sites=mlp.down,{_SECOND}]", "LLM-Adapters' best series adapter, second version"),
    Preset(
        "parallel-paper-v2", f"parallel[sites=mlp,{_SECOND}]", "LLM-Adapters' best parallel adapter, second version"
    ),
    Preset("prefix-paper-v2", "prefix[num_virtual_tokens=10]", "LLM-Adapters' best prefix, second version"),
    # AdapterHub's configs of these names; its input to `seq_bn` is the residual stream after the block.
    Preset("seq_bn", "series[bottleneck=1/16,sites=block,init=paper]", "AdapterHub's SeqBnConfig (Pfeiffer et al.)"),
    Preset(
        "double_seq_bn",
        "series[bottleneck=1/16,sites=attn.o+mlp.down,activation=silu,init=paper]",
        "AdapterHub's DoubleSeqBnConfig (Houlsby et al.)",
    ),
    Preset("par_bn", "parallel[bottleneck=1/2,sites=mlp,scaling=4.0]", "AdapterHub's ParBnConfig (He et al.)"),
    Preset(
        "scaled_par_bn",
        "parallel[bottleneck=1/2,sites=mlp,scaling=learned]",
        "AdapterHub's ParBnConfig with a learned scaling",
    ),
]


@hookimpl
def llmad_adapters() -> list[Preset]:
    """The presets."""
    return PRESETS
