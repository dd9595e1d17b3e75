"""Lexicon: what linear maps are called in the wild, as a hint for the resolver; all in lower case.

A name alone decides nothing: the resolver also wants the shapes to agree, and says so where they do not.
"""

QUERY = frozenset("q q_proj query query_proj q_lin project_q wq q_b_proj".split())
KEY = frozenset("k k_proj key key_proj k_lin project_k wk".split())
VALUE = frozenset("v v_proj value value_proj v_lin project_v wv v_proj_current v_proj_delayed".split())
FUSED = {  # names of linear maps that make several of them
    **dict.fromkeys("qkv qkv_proj query_key_value wqkv c_attn qkv_lin".split(), ("attn.q", "attn.k", "attn.v")),
    **dict.fromkeys("kv_b_proj kv_proj key_value".split(), ("attn.k", "attn.v")),
    "q_gate_proj": ("attn.q",),  # with a gate of attention's output
}
ATTENTION_OUT = frozenset(
    "o o_proj out_proj out output dense c_proj wo out_lin attention_out attn_out linear_out o_b_proj".split()
)
MIXER_IN = ("in_proj", "linear_x", "linear_y", "receptance")  # beginnings; each makes its module a mixer
MIXER_OUT = frozenset("out_proj linear_out output".split())
MIXER_INNER = frozenset("x_proj dt_proj".split())
GATE = frozenset("gate_proj w1 wi_0 proj_up_gate w_0".split())
UP = frozenset(
    "up_proj w3 wi_1 wi fc1 c_fc fc_in dense_h_to_4h lin1 intermediate proj_up w_1 layer_1".split()
    + "gate_up_proj gate_up input_linear".split()  # with a gate; the width tells
)
DOWN = frozenset(
    "down_proj w2 fc2 c_proj fc_out dense_4h_to_h lin2 output proj_down w_out layer_2 wo output_linear".split()
)
WRAPPERS = frozenset("linear dense lin".split())  # where the parent's name is the telling one
STACKED = {  # names of parameters that hold a matrix for each expert
    **dict.fromkeys("gate_proj w1".split(), "gate"),
    **dict.fromkeys("up_proj w3".split(), "up"),
    "gate_up_proj": "gate_up",
    **dict.fromkeys("down_proj w2".split(), "down"),
}
STACKED_WEIGHT = {"input_linear": "gate_up", "output_linear": "down"}  # names of modules with such a `weight`

# Parts of a path below which nothing gets a role.
ASIDE = {
    "encoder_attn": "it attends to an encoder, and a text alone does not pass it",
    "cross_attn": "it attends to more than the text, and a text alone does not pass it",
    "crossattention": "it attends to an encoder, and a text alone does not pass it",
    "indexer": "it only chooses positions, and no gradient passes it",
    "compressor": "it belongs to the cache",
    "router": "a router is left alone",
    "gate": "a router is left alone",
    "adapter_modules": "it is an adapter that the model brings along",
}
ROUTERS = (".router", ".gate", ".shared_expert_gate", ".classifier")  # endings of paths
ELSEWHERE = ("vision", "visual", "image", "img", "audio", "speech", "depth_decoder")
