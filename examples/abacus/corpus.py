"""The pretraining text of the `abacus` backbone: stories and equations, never a solved word problem.

Its documents teach apart what an adapter can later join:

* equation lists: arithmetic, in symbols and now and then read out in words;
* stories: everyday words, the direction in which a number moves, and the copying of numbers;
* notebooks: a story beside equations that have nothing to do with it;
* worksheets: questions, and what would have to be worked out, in words; it never is;
* number lists: names with numbers, said twice.

The text is a function of the seed alone: `random.Random` draws everything, the same on every machine.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from equations import LARGEST, SMALLEST, Equation, equations, held_out, solve, write
from wording import NAMES, NOTES, OPERATIONS, OUTCOMES, QUESTIONS, READINGS, SCENES, SLOTS


@dataclass(frozen=True)
class Scene:
    """A text about two numbers, and what fills the slots of its templates."""

    kind: str
    text: str
    numbers: tuple[int, int]
    slots: dict[str, str]


class Writer:
    """Writes documents, all drawn from one seeded generator."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.shown = {op: [e for e in equations(op) if not held_out(e)] for op in READINGS}

    def document(self) -> str:
        """Return one document; the weights give about half of the tokens to equations."""
        kinds = (self.equation_list, self.story, self.notebook, self.worksheet, self.number_list)
        (write_one,) = self.rng.choices(kinds, weights=(34, 28, 16, 16, 6))
        return write_one()

    def equation_list(self) -> str:
        """Return a few equations, one a line."""
        return "\n".join(self.equation_line(self.equation()) for _ in range(self.rng.randint(3, 9)))

    def story(self) -> str:
        """Return a scene, what became of the things, and a note of the numbers."""
        return self.tell(self.scene())

    def notebook(self) -> str:
        """Return a story and, before or after it, equations that cannot be about it."""
        scene = self.scene()
        found = (self.equation_beside(scene) for _ in range(self.rng.randint(1, 4)))
        lines = [self.equation_line(equation) for equation in found]
        story = self.tell(scene)
        return "\n".join([story, *lines] if self.rng.random() < 0.7 else [*lines, story])

    def worksheet(self) -> str:
        """Return a scene, a question and, where the answer belongs, its two numbers in words."""
        scene = self.scene()
        question = self.rng.choice(QUESTIONS)
        text = f"Question: {scene.text} {question}\nAnswer: {self.reading(scene)}, not worked out."
        return text.format(**scene.slots)

    def number_list(self) -> str:
        """Return names with numbers, then the same in another order."""
        names = self.rng.sample(NAMES, self.rng.randint(2, 4))
        entries = [f"{name} {self.number()}" for name in names]
        again = self.rng.sample(entries, len(entries))
        return f"{', '.join(entries)}. {', '.join(again)}."

    def number(self) -> int:
        """Return any number of the range."""
        return self.rng.randint(SMALLEST, LARGEST)

    def equation(self) -> Equation:
        """Return an equation that is not held out; there are fewer products and quotients to learn."""
        (operation,) = self.rng.choices("+-*/", weights=(39, 33, 14, 14))
        return self.rng.choice(self.shown[operation])

    def equation_beside(self, scene: Scene) -> Equation:
        """Return an equation that does not combine the two numbers of the scene."""
        while True:
            equation = self.equation()
            if set(equation[1:]) != set(scene.numbers):
                return equation

    def equation_line(self, equation: Equation) -> str:
        """Return the equation, sometimes read out first, sometimes with its result said again."""
        operation, a, b = equation
        reading = self.rng.choice(READINGS[operation]).format(a=a, b=b)
        before = f"{reading}: " if self.rng.random() < 0.2 else ""
        after = f" The answer is {solve(*equation)}." if self.rng.random() < 0.4 else ""
        return before + write(equation) + after

    def scene(self) -> Scene:
        """Return a scene with all slots filled."""
        kind = self.rng.choice(list(SCENES))
        template = self.rng.choice(SCENES[kind])
        a, b = self.number(), self.number()
        if kind in ("loss", "shares"):
            a, b = max(a, b), min(a, b)
        x, y = (a, b) if template.index("{a}") < template.index("{b}") else (b, a)
        name, other = self.rng.sample(NAMES, 2)
        slots = {slot: self.rng.choice(words) for slot, words in SLOTS.items()}
        slots |= {"name": name, "other": other, "a": str(a), "b": str(b), "x": str(x), "y": str(y)}
        return Scene(kind, template.format(**slots), (a, b), slots)

    def tell(self, scene: Scene) -> str:
        """Return the scene with its outcome and its numbers, in either order."""
        numbers = f"Notes: {self.reading(scene)}." if self.rng.random() < 0.7 else self.rng.choice(NOTES)
        endings = [self.rng.choice(OUTCOMES[scene.kind]), numbers]
        self.rng.shuffle(endings)
        return " ".join([scene.text, *(ending.format(**scene.slots) for ending in endings)])

    def reading(self, scene: Scene) -> str:
        """Return a template of words for the two numbers of a scene."""
        return self.rng.choice(READINGS[OPERATIONS[scene.kind]])


def documents(seed: int) -> Iterator[str]:
    """Yield documents without end."""
    writer = Writer(seed)
    while True:
        yield writer.document()
