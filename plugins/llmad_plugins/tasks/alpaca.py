"""The prompt of Alpaca (Taori et al., 2023), which LLM-Adapters asks its tasks in."""

from llmad import Prompt

ALPACA = Prompt(
    question="Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.\n\n### Instruction:\n{instruction}\n\n### Response:\n",
    question_with_input="Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n"
    "### Input:\n{input}\n\n### Response:\n",
)
