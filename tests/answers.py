"""Made-up answers, for tests of what becomes of them."""

from llmad.score import Answer, Score, tally


def scored(n: int, correct: int, task: str = "arithmetic") -> Score:
    """The score of so many right answers; every second right answer is 7."""
    made = [Answer(task, row, "1?", "text", "7", "7" if row % 2 else "8", row < correct, 5) for row in range(n)]
    return tally(task, made, 1.0)
