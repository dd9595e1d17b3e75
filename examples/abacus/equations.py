"""The arithmetic of the corpus: which equations there are and which of them the corpus leaves out."""

from zlib import crc32

SMALLEST, LARGEST = 2, 50
HELD_OUT_IN_100 = 5

Equation = tuple[str, int, int]
"""Operation and the two numbers."""


def solve(operation: str, a: int, b: int) -> int:
    """Return `a operation b`; a division must be exact."""
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[operation]


def equations(operation: str) -> list[Equation]:
    """Return all equations of one operation whose three numbers lie in SMALLEST..LARGEST."""
    numbers = range(SMALLEST, LARGEST + 1)
    pairs = [(a, b) for a in numbers for b in numbers if operation != "/" or a % b == 0]
    return [(operation, a, b) for a, b in pairs if SMALLEST <= solve(operation, a, b) <= LARGEST]


def held_out(equation: Equation) -> bool:
    """Say whether the corpus leaves this sum or difference out, to be asked for after training.

    A sum is held out in both orders of its numbers. Products and quotients are tables to be learnt by heart,
    so all of them are shown.
    """
    operation, a, b = equation
    key = f"{operation} {min(a, b)} {max(a, b)}"
    return operation in "+-" and crc32(key.encode()) % 100 < HELD_OUT_IN_100


def write(equation: Equation) -> str:
    """Return the equation with its result, such as `23 + 14 = 37.`"""
    operation, a, b = equation
    return f"{a} {operation} {b} = {solve(operation, a, b)}."
