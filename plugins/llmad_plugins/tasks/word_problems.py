"""Word problems with a worked answer, written by a generator.

Every problem is one step (`+`, `-`, `*` or `/`) on whole numbers from 2 to 50 with a result in that range.
Train and test share neither a template nor a pair of numbers, so the test rows measure whether a model has
learnt to read a story into an equation. The pool has one row for every template and every pair of numbers.
"""

import random
from itertools import chain, zip_longest
from typing import Literal
from zlib import crc32

Split = Literal["train", "test"]
Problem = tuple[str, str, int, int]
"""Template, operation, and the two numbers in the order of the equation."""

SMALLEST, LARGEST = 2, 50
TEST_PAIRS_IN_100 = 20

NAMES = (
    *("Tom", "Mia", "Ben", "Anna", "Sam", "Lily", "Max", "Ella"),
    *("Jack", "Nora", "Paul", "Rosa", "Omar", "Ida", "Finn", "Zoe"),
)
THINGS = (
    *("apples", "pears", "books", "coins", "cards", "pencils", "marbles"),
    *("shells", "stamps", "cookies", "flowers", "stones", "balls", "eggs"),
)
PLACES = ("box", "basket", "bag", "drawer", "jar", "bowl")

# One template a line: {n} and {m} are names, {t} the things, {p} a place, {a} and {b} the numbers.
TRAIN = {
    "+": """
{n} had {a} {t}. {m} gave {n} {b} more {t}. How many {t} does {n} have now?
{n} has {a} {t}. Then {n} buys {b} more. How many {t} does {n} have in all?
There were {a} {t} in the {p}. {n} put {b} more {t} in the {p}. How many {t} are in the {p} now?
{n} has {a} {t} and {m} has {b} {t}. How many {t} do they have together?
In the morning {n} found {a} {t}. In the evening {n} found {b} more. How many {t} did {n} find that day?
{n} got {a} {t} from {m}. Later {n} got {b} {t} from a friend. How many {t} did {n} get?
{n} picked {a} {t} on Monday and {b} {t} on Tuesday. How many {t} is that altogether?
{m} has {a} {t}. {n} has {b} more {t} than {m}. How many {t} does {n} have?
A shop had {a} {t}. It got {b} more {t} today. How many {t} does the shop have now?
{n} made {a} {t} and {m} made {b} {t}. How many {t} did {n} and {m} make in all?
{a} {t} are in the {p}. {m} puts {b} more {t} in. How many {t} are there in all?
{n} found {a} {t} today and had {b} {t} before. How many {t} does {n} have now?
{m} gave {n} {a} {t}. Then {n} bought {b} {t}. How many {t} does {n} have?
""",
    "-": """
{n} had {a} {t}. {n} gave {b} of them to {m}. How many {t} does {n} have now?
{n} has {a} {t}. Then {n} loses {b} {t}. How many {t} are left?
There were {a} {t} in the {p}. {n} took {b} {t} out of the {p}. How many {t} are still in the {p}?
{n} had {a} {t} and sold {b} of them. How many {t} did {n} keep?
{n} has {a} {t}. {m} has {b} fewer {t} than {n}. How many {t} does {m} have?
{n} counted {a} {t} in the morning. In the evening {b} of them were gone. How many {t} were left?
{n} found {a} {t} and gave away {b}. How many {t} does {n} still have?
{n} lost {b} of the {a} {t} in the {p}. How many {t} are left?
A shop had {a} {t}. Today it sold {b} {t}. How many {t} does the shop still have?
There are {a} {t} in the {p}. {n} takes {b} of them. How many {t} are left in the {p}?
{n} bought {a} {t}, but {b} of them are gone now. How many {t} are there still?
{n} picked {a} {t}. {m} took {b} of them. How many {t} does {n} have left?
Of {a} {t} in the {p}, {n} sold {b}. How many {t} are left?
""",
    "*": """
{n} has {a} boxes. Each box holds {b} {t}. How many {t} does {n} have in all?
{n} buys {a} bags of {t} with {b} {t} in each bag. How many {t} does {n} buy?
There are {a} rows of {t} with {b} {t} in every row. How many {t} are there?
{n} finds {a} {t} every day for {b} days. How many {t} does {n} find?
{a} children have {b} {t} each. How many {t} do the children have together?
{n} gave {a} {t} to each of {b} friends. How many {t} did {n} give away?
There are {a} tables. On every table there are {b} {t}. How many {t} are on the tables?
A pack holds {a} {t}. {n} buys {b} packs. How many {t} does {n} get?
Each of {a} children found {b} {t}. How many {t} did the children find?
{a} boys picked {b} {t} each. How many {t} did the boys pick in all?
Every day {n} gets {a} {t}. How many {t} does {n} have after {b} days?
{n} has {a} packs. There are {b} {t} in each pack. How many {t} does {n} have?
{a} girls got {b} {t} each. How many {t} did they get together?
There are {a} rooms with {b} {t} in each room. How many {t} are in the rooms?
Every bag holds {a} {t}. {n} fills {b} bags. How many {t} are in the bags?
In each of {a} boxes there are {b} {t}. How many {t} are there in all?
{n} buys {a} {t} every day. How many {t} does {n} buy in {b} days?
{a} people each have {b} {t}. How many {t} is that altogether?
{n} put {a} {t} on each of {b} tables. How many {t} did {n} put on the tables?
{n} made {a} rows with {b} {t} in each. How many {t} did {n} use?
""",
    "/": """
{n} shared {a} {t} equally among {b} friends. How many {t} did each friend get?
{n} puts {a} {t} into {b} boxes, the same number in each box. How many {t} are in each box?
{b} children share {a} {t} equally. How many {t} does each child get?
{n} has {a} {t} and packs them in bags of {b}. How many bags does {n} fill?
{a} {t} are split into {b} equal groups. How many {t} are in one group?
{n} divided {a} {t} fairly between {b} people. How many {t} did each one get?
There are {a} {t} in {b} equal rows. How many {t} are in each row?
{n} laid {a} {t} in equal piles of {b}. How many piles did {n} make?
{n} split {a} {t} among {b} boys, the same number for each. How many {t} did each boy get?
{b} girls divided {a} {t} equally. How many {t} did every girl get?
{n} packed {a} {t} in {b} equal bags. How many {t} did {n} put in each bag?
{b} people share {a} {t}, the same number for each. How many {t} does each one have?
{n} gives {a} {t} to {b} friends, each the same number. How many {t} does one friend get?
{n} puts {a} {t} on {b} tables, the same number on every table. How many {t} are on one table?
Each bag holds {b} {t}. {n} has {a} {t}. How many bags does {n} need?
{a} {t} are shared fairly by {b} girls. How many {t} does each girl have?
{n} makes rows of {b} with {a} {t}. How many rows are there?
There are {a} {t} for {b} children. Each gets the same number. How many {t} is that for each child?
{n} divides {a} {t} into groups of {b}. How many groups does {n} get?
In {b} boxes there are {a} {t}, the same number in each box. How many {t} are in one box?
""",
}
TEST = {
    "+": """
{n} found {a} {t}. Then {m} gave {n} {b} more. How many {t} does {n} have in all?
On Monday {n} bought {a} {t}. On Tuesday {n} bought {b} more {t}. How many {t} did {n} buy altogether?
{n} put {a} {t} in the {p} and {m} put {b} more {t} in. How many {t} are in the {p} now?
{n} picked {a} {t} and {m} picked {b} {t}. How many {t} do they have together?
""",
    "-": """
{n} found {a} {t} and lost {b} of them. How many {t} are left?
There were {a} {t} in the {p}. {n} gave {b} of them to {m}. How many {t} are there now?
A shop had {a} {t} in the morning and sold {b} {t}. How many {t} are still in the shop?
{n} took {b} of the {a} {t} out of the {p}. How many {t} are left in the {p}?
""",
    "*": """
{n} bought {a} packs of {t}. Each pack holds {b} {t}. How many {t} does {n} have?
There are {a} tables with {b} {t} on each table. How many {t} are there in all?
{n} gets {a} {t} every day. How many {t} does {n} get in {b} days?
{a} friends found {b} {t} each. How many {t} did they find together?
""",
    "/": """
{n} divided {a} {t} equally among {b} children. How many {t} does each child have?
{b} friends share {a} {t} fairly. How many {t} does each one get?
{n} packs {a} {t} in {b} bags, the same number in every bag. How many {t} are in one bag?
{n} puts {a} {t} in equal rows of {b}. How many rows does {n} make?
""",
}


def generate(split: Split, count: int, seed: int = 0) -> list[dict[str, str]]:
    """Return `count` distinct rows with the columns of the LLM-Adapters data sets.

    The operations take turns as long as each has rows left; another seed gives another selection.
    """
    rng = random.Random(seed)
    pools = [problems(split, operation) for operation in TRAIN]
    available = sum(map(len, pools))
    if not 0 <= count <= available:
        raise ValueError(f"arithmetic {split}: {count} rows asked for, {available} rows available")
    for pool in pools:
        rng.shuffle(pool)
    turns = chain.from_iterable(zip_longest(*pools))
    chosen = [problem for problem in turns if problem is not None][:count]
    rng.shuffle(chosen)
    return [_row(problem, rng) for problem in chosen]


def problems(split: Split, operation: str) -> list[Problem]:
    """Return every problem of one split and operation, in a fixed order."""
    templates = (TRAIN if split == "train" else TEST)[operation].strip().splitlines()
    pairs = [(a, b) for a, b in _pairs(operation) if _split_of(operation, a, b) == split]
    return [(template, operation, a, b) for template in templates for a, b in pairs]


def solve(operation: str, a: int, b: int) -> int:
    """Return `a operation b`; a division must be exact."""
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[operation]


def _pairs(operation: str) -> list[tuple[int, int]]:
    numbers = range(SMALLEST, LARGEST + 1)
    pairs = [(a, b) for a in numbers for b in numbers if operation != "/" or a % b == 0]
    return [(a, b) for a, b in pairs if SMALLEST <= solve(operation, a, b) <= LARGEST]


def _split_of(operation: str, a: int, b: int) -> Split:
    """Return the one split that may use this pair; 3 + 4 and 4 + 3 count as one pair."""
    key = f"{operation} {min(a, b)} {max(a, b)}"
    return "test" if crc32(key.encode()) % 100 < TEST_PAIRS_IN_100 else "train"


def _row(problem: Problem, rng: random.Random) -> dict[str, str]:
    template, operation, a, b = problem
    n, m = rng.sample(NAMES, 2)
    text = template.format(n=n, m=m, t=rng.choice(THINGS), p=rng.choice(PLACES), a=a, b=b)
    answer = str(solve(operation, a, b))
    output = f"{a} {operation} {b} = {answer}. The answer is {answer}."
    return {"instruction": text, "input": "", "output": output, "answer": answer}
