"""A tiny random model of every type of causal language model that the installed transformers knows.

A configuration is shrunk by the names of its fields: `_RULES` says how large a field of such a name is here, and the
lists that name a kind for each layer keep each kind once. `_OVERRIDES` holds what single types need beside that.
"""

import re
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

TYPES: tuple[str, ...] = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)

_ASSISTANT = "drafts for a larger model: its forward takes that model's states, and not text ids"
UNBUILT: dict[str, str] = {
    "gemma3n": "its vision tower is one of timm's, which is not installed; gemma3n_text is the same language model",
    "gemma4_assistant": _ASSISTANT,
    "gemma4_unified_assistant": _ASSISTANT,
}

VOCABULARY = 97
_LAYERS = "layers"  # stands for the number of layers asked for

# The first expression that matches the whole name of a field says what the field becomes; None leaves it as it is.
_RULES: tuple[tuple[str, Any], ...] = (
    (r"bos_token_id|decoder_start_token_id", 1),
    (r"eos_token_id", 2),
    (r"pad_token_id", 0),
    (r".*_token_(id|index)", 1),
    (r"is_decoder", True),
    (r".*drop(out)?(_p|_prob|_rate)?|.*(pdrop|layerdrop)|.*jitter_noise", 0.0),
    (r"(decoder_)?vocab_size(_per_layer_input)?|unpadded_vocab_size", VOCABULARY),
    (r"hidden_size_per_layer_input|laurel_rank|.*_lora_rank|gated_norm_rank|hc_lowrank|d_rel|time_step_rank", 8),
    (r"(num_|n_|encoder_|decoder_|num_encoder_|num_decoder_|swa_num_|linear_num_)?(attention_|value_)?heads?", 4),
    (r"index_n_heads|linear_num_key_heads|o_groups", 2),
    (r"index_topk|index_(block_size|topk_blocks)", 4),
    (r"(swa_)?num_key_value_heads|num_kv_heads|kv_n_heads|num_query_groups", 2),
    (r"qk_nope_head_dim", 16),
    (r"v_head_dim|qk_rope_head_dim", 8),
    (r"qk_head_dim", None),
    (r"(swa_)?head_dim|kv_channels|attention_head_size|dim_head|d_kv|d_head|.*_head_dim", 16),
    (r"(input_|output_)?(hidden_size|embedding_size)|d_model|n_embd|emb_dim|embedding_dim|embed_dim", 32),
    (r"lru_width|word_embed_proj_dim|out_hidden_size|hidden_size_global|.*backbone_hidden_size", 32),
    (r".*intermediate_size(_mlp)?|.*ffn_dim|d_ff|dff|dim_ff|d_inner|ffn_hidden_size|feed_forward_size|mlp_dim", 48),
    (r"expert_ffn_hidden_size", 24),
    (r"(num_)?(hidden_|decoder_|encoder_)?layers|n_layers?|depth|num_blocks", _LAYERS),
    (r"num_nextn_predict_layers|num_mtp_layers", 0),
    (r"(n_routed|num_local|num|moe_num)_experts", 4),
    (r"(n_shared|num_shared|moe_num_shared)_experts", 1),
    (r"num_experts_per_tok(en)?|moe_(top)?_?k|top_k_experts", 2),
    (r"n_group|num_expert_group|topk_group", 1),
    (r"first_k_dense_replace|num_dense_layers", 1),
    (r".*max_position_embeddings|n_positions|n_ctx|max_seq_len|max_(source|target)_positions|context_length", 128),
    (r"(sliding_window(_size)?|attention_window_size|window_size|local_attention|attention_chunk_size)", 4),
    (r"ssm_state_size|state_size|mamba_d_state", 8),
    (r"(mamba_)?chunk_size", 4),
    (r"mamba_(n|num)_heads|n_mamba_heads", 4),
    (r"zero_expert_num", 2),
    (r"rotary_dim", 4),
    (r"(mamba_)?n_?groups", 2),
    (r"num_position_embeddings", 16),
    (r"adapter_(in_dim|out_dim|input_size)|.*_out_channel|nemo_conv_channels|downsample_hidden_size", 32),
    (r"output_channels|encoder_hash_byte_group_vocab|(shape|pronunciation)_vocab_size", 32),
    (r"router_hidden_size|(shape|pronunciation)_embed_dim", 16),
    (r"image_size", 8),
    (r"patch_size", 4),
)
# A field that is None stays None, since that switches a part off, but for these.
_FILLED = re.compile(r".*token_id|head_dim|num_key_value_heads|num_experts_per_tok")

# Lists with a kind for each layer.
_KINDS = re.compile(r"layer_types|mlp_layer_types|layers_block_type|attn_layers")

# What follows from having a field of this name, before `_RULES`.
_TRAITS: dict[str, dict[str, Any]] = {
    "qk_nope_head_dim": {"num_key_value_heads": 4, "head_dim": 8},  # latent attention gives k as many heads as q
}

_GEMMA_PATTERN = ["sliding_attention", "full_attention"] * 2
_QSA = {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 4}
_QWEN4 = {
    **_QSA,
    "indexer_compress_ratio": 2,
    "ple_layer_ids": [1],
    "ple_embed_dim": 32,
    "heads_per_ngram": 2,
    "ngram_vocab_size_base": 31,
    "make_ngram_vocab_size_divisible_by": 4,
    "split_ngram_parts": 2,
}
_DOTS3 = {
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_q_lora_rank": 8,
    "swa_kv_lora_rank": 8,
    "swa_head_dim": 24,
    "swa_qk_nope_head_dim": 16,
    "swa_v_head_dim": 8,
}
# By type: fields, parts of a configuration as dictionaries of their own, and functions of the number of layers.
_OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "blt": {"use_cache": False, **{f"{part}_config": {"head_dim": 8} for part in ("patcher", "decoder", "global")}},
    "cohere2_moe": {"mlp_layer_types": ["dense", "sparse"]},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "dbrx": {"attn_config": {"rope_theta": 1e4, "clip_qkv": 8.0}, "ffn_config": {"moe_top_k": 2}},
    "deepseek_v4": {"compress_rates": {"compressed_sparse_attention": 2, "heavily_compressed_attention": 4}},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "dots3_note": {"text_config": _DOTS3},
    "dots3_note_text": _DOTS3,
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_d_head": 16},
    "ernie4_5_moe": {"moe_layer_start_index": 1, "moe_layer_end_index": 9},
    "flint": {"mlp_only_layers": [0]},
    "gemma3n_text": {"layer_types": _GEMMA_PATTERN, "num_kv_shared_layers": 2},
    "gemma4": {
        "text_config": {"global_head_dim": 32},
        "vision_config": {"model_type": "gemma4_vision", "position_embedding_size": 16},
        "audio_config": {"model_type": "gemma4_audio", "output_proj_dims": 32, "subsampling_conv_channels": [8, 4]},
    },
    "gemma4_text": {
        "global_head_dim": 32,
        "enable_moe_block": True,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 24,
    },
    "gemma4_unified": {"text_config": {"global_head_dim": 32}},
    "gemma4_unified_text": {"global_head_dim": 32, "attention_k_eq_v": True},
    "gpt_neo": {"attention_types": lambda layers: [[["global"], 1], [["local"], layers - 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "helium": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_offset": 0},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "llama4": {"text_config": {"interleave_moe_layer_step": 2}},
    "llama4_text": {"interleave_moe_layer_step": 2},
    "minimax_m3_vl_text": {
        "layer_types": ["full_attention", "minimax_m3_sparse"],
        "mlp_layer_types": ["dense", "sparse"],
    },
    # text runs past the layers that look at an image
    "mllama": {"text_config": {"cross_attention_layers": [1], "num_hidden_layers": lambda layers: layers + 1}},
    "musicgen": {"decoder": {"num_codebooks": 1}},
    "musicgen_melody": {"decoder": {"num_codebooks": 1}},
    "qwen2_moe": {"mlp_only_layers": [0]},
    "qwen3_moe": {"mlp_only_layers": [0]},
    "qwen3_next": {"mlp_only_layers": [0]},
    "qwen4_exp": {"text_config": _QWEN4},
    "qwen4_exp_text": _QWEN4,
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "reformer": {
        "axial_pos_embds": False,  # they, and chunks of more than one, hold for one length in training
        "local_attn_chunk_length": 1,
        "lsh_attn_chunk_length": 1,
        "num_buckets": 2,
        "hash_seed": 1,
    },
    "xlm": {"causal": True},
    "xlnet": {"d_head": 8, "attn_type": "uni"},
    # the state that it caches is written in place, which no gradient passes
    "xlstm": {
        **{"hidden_size": 64, "embedding_dim": 64, "use_cache": False},
        **{"qk_dim_factor": 1.0, "v_dim_factor": 2.0, "ffn_proj_factor": 1.0},
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": {"layers_block_type": ["mamba", "hybrid", "hybrid"]},
    "zamba2": {"layers_block_type": ["mamba", "hybrid", "hybrid"]},
    "zaya": {"num_experts_per_tok": 1},
}


def _rule(name: str, traits: dict[str, Any]) -> Any:
    """What a field of this name becomes, or None."""
    if name in traits:
        return traits[name]
    return next((value for pattern, value in _RULES if re.fullmatch(pattern, name)), None)


def _kinds(default: PreTrainedConfig, layers: int, more: dict[str, Any]) -> dict[str, list[str]]:
    """The lists of kinds, each with every kind that the full-size model has, all of one length.

    The last kind fills up, and lists side by side pair off: the dense MLP sits in the first kind of layer.
    """
    lists = {name: value for name, value in (vars(default) | more).items() if _KINDS.fullmatch(name) and value}
    distinct = {name: value if name in more else list(dict.fromkeys(value)) for name, value in lists.items()}
    length = max([layers, *map(len, distinct.values())])
    return {name: [*kinds, *[kinds[-1]] * (length - len(kinds))] for name, kinds in distinct.items()}


def _shrunk(default: PreTrainedConfig, layers: int, more: dict[str, Any]) -> PreTrainedConfig:
    """A configuration of the class of `default`, small."""
    kinds = _kinds(default, layers, more)
    layers = max([layers, *map(len, kinds.values())])
    traits: dict[str, Any] = {}
    for mark, rules in _TRAITS.items():
        traits |= rules if mark in vars(default) else {}
    fields: dict[str, Any] = {}
    for name, value in vars(default).items():
        new = layers if (new := _rule(name, traits)) is _LAYERS else new
        part = more[name](layers) if callable(more.get(name)) else more.get(name)
        if value is None and isinstance(part, dict) and "model_type" in part:  # a part that may be absent
            value = CONFIG_MAPPING[part["model_type"]]()
        if isinstance(value, PreTrainedConfig):
            fields[name] = _shrunk(value, layers, part or {})
        elif name in more:
            fields[name] = part
        elif new is not None and (value is not None or _FILLED.fullmatch(name)):
            # a field keeps its type: `strict` configurations tell 0 from 0.0
            fields[name] = type(value)(new) if type(value) in (int, float) else new
    fields |= kinds | {name: value for name, value in more.items() if name not in fields}
    return type(default)(**fields)


def config(model_type: str, layers: int = 2) -> PreTrainedConfig:
    """The small configuration of one type, with two layers or more: a hybrid has no sense in one."""
    layers = max(2, layers)
    return _shrunk(CONFIG_MAPPING[model_type](), layers, _OVERRIDES.get(model_type, {}))


def build(model_type: str, layers: int = 2, seed: int = 0) -> nn.Module:
    """A tiny random model of the class that `AutoModelForCausalLM` takes for `model_type`.

    It has `layers` layers, or as many as it takes to show every kind of layer that the type has.
    """
    torch.manual_seed(seed)
    small = config(model_type, layers)
    cls = MODEL_FOR_CAUSAL_LM_MAPPING[type(small)]
    if not isinstance(small, cls.config_class):  # the language model of a model of several parts
        small = next((part for part in vars(small).values() if isinstance(part, cls.config_class)), small)
    model: nn.Module = cls._from_config(small, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # fresh biases are zero and fresh norms are one: hide nothing behind them
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model
