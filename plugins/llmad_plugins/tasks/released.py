"""How the scripts released with LLM-Adapters ask: finetune.py, evaluate.py and commonsense_evaluate.py.

The prompts stand indented in their code, and the blanks of the indentation are part of them. Read from the newest
versions found of each; `paper` asks so, and the quirks say what follows from it and what is left out.
"""

from llmad import Prompt, Released

_TASK = "Below is an instruction that describes a task"
_WRITE = "Write a response that appropriately completes the request."
_IN = " " * 16

_INSTRUCTION = f"{_IN}### Instruction:\n{_IN}{{instruction}}\n"
_INPUT = f"{_IN}### Input:\n{_IN}{{input}}\n"
_RESPONSE = f"{_IN}### Response:\n{_IN}"

_TRAINED = Prompt(
    question=f"{_TASK}. {_WRITE}  \n\n{_INSTRUCTION}{_IN}\n{_RESPONSE}",
    question_with_input=f"{_TASK}, paired with an input that provides further context. {_WRITE} \n\n"
    f"{_INSTRUCTION}{_IN}\n{_INPUT}{_IN}\n{_RESPONSE}",
    verbatim=True,
)
_ASKED = Prompt(question=f"{_TASK}. {_WRITE} \n\n{_INSTRUCTION}\n{_RESPONSE}")

_QUIRKS = (
    "The scoring prompt is not the training prompt: its blanks and line breaks differ, and so do those of the demo.",
    "Questions are asked without the row's input, which training shows.",
    "Answers come from a search with four beams; the temperature, top_p and top_k given with it have no effect.",
    "An answer that cannot be read counts as a wrong one and is not told apart.",
)
_LEFT_OUT = (
    "Not reproduced: the scripts call eval() on a CPU only, so that on a GPU dropout may act while scoring.",
    "Not reproduced: the scripts cut an answer off where '### Response:' stands in it again.",
)

MATH = Released(
    trained=_TRAINED,
    asked=_ASKED,
    num_beams=4,
    max_new_tokens=256,
    quirks=(
        *_QUIRKS,
        "A number is the last one of the text, wherever it stands, after all commas are dropped.",
        "A letter is the first capital A to E of the text, be it the first letter of a sentence.",
        *_LEFT_OUT,
    ),
)
COMMONSENSE = Released(
    trained=_TRAINED,
    asked=_ASKED,
    num_beams=4,
    max_new_tokens=32,
    quirks=(
        *_QUIRKS,
        "A label is the first one that the text mentions in lower case, be it inside a word or denied.",
        *_LEFT_OUT,
        "Not reproduced: questions are padded on the left without a mask, so that an answer depends on its batch.",
    ),
)
