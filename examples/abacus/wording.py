"""The words of the corpus: names, things, scenes, and what is said about them. Data only."""

NAMES = (
    *("Tom", "Mia", "Ben", "Anna", "Sam", "Lily", "Max", "Ella", "Jack", "Nora"),
    *("Paul", "Rosa", "Omar", "Ida", "Finn", "Zoe", "Leo", "Ruth", "Hugo", "Vera"),
)

# Small words that fill the slots of the scenes below; every slot is drawn on its own.
SLOTS = {
    "things": (
        *("apples", "pears", "books", "coins", "cards", "pencils", "marbles", "shells", "stamps", "cookies"),
        *("flowers", "stones", "balls", "eggs", "toys", "buttons", "pens", "cups"),
    ),
    "place": ("box", "basket", "bag", "drawer", "jar", "bowl", "shop", "room", "garden"),
    "holders": ("boxes", "bags", "packs", "rows", "piles", "tables", "groups", "baskets", "shelves", "jars"),
    "people": ("children", "friends", "people", "boys", "girls"),
    "when": ("in the morning", "on Monday", "that day", "today"),
    "then": ("in the evening", "on Tuesday", "later", "the next day"),
    "Then": ("In the evening", "On Tuesday", "Later", "The next day", "Then"),
    "got": ("found", "bought", "got", "picked", "made", "won", "buys", "finds", "gets", "picks", "counted"),
    "lost": ("lost", "sold", "gave away", "used", "ate", "dropped", "loses", "sells", "gives away"),
    "shared": ("shared", "divided", "split", "shares", "divides"),
    "put": ("put", "packed", "laid", "puts", "packs", "lays"),
    "fairly": ("equally", "fairly"),
    "among": ("among", "between"),
}

# A scene holds two numbers, {a} and {b}. Its kind is the direction in which the number of things moves.
SCENES = {
    "gain": (
        "{name} had {a} {things}. {other} gave {name} {b} more {things}.",
        "{name} has {a} {things}. {Then} {name} {got} {b} more.",
        "{name} {got} {a} {things} {when} and {b} more {then}.",
        "{name} {got} {a} {things} {when}. {name} {got} {b} {things} {then}.",
        "There were {a} {things} in the {place}. {name} put {b} more {things} in the {place}.",
        "{a} {things} are in the {place}. {name} puts {b} more in.",
        "{name} put {a} {things} in the {place} and {other} put {b} more in.",
        "{name} has {a} {things} and {other} has {b} {things}. They put them together.",
        "{name} {got} {a} {things} and {other} {got} {b} {things}. They have them together.",
        "{name} has {a} {things}. {other} has {b} more {things} than {name}.",
        "{name} got {a} {things} from {other}. {Then} {name} got {b} {things} from a friend.",
    ),
    "loss": (
        "{name} had {a} {things}. {name} gave {b} of them to {other}.",
        "{name} {got} {a} {things}. {Then} {name} {lost} {b} {things}.",
        "{name} had {a} {things} and {lost} {b} of them.",
        "{name} has {a} {things}. {Then} {name} {lost} {b}.",
        "There were {a} {things} in the {place}. {name} took {b} {things} out of the {place}.",
        "There were {a} {things} in the {place}. {name} took {b} of them {then}.",
        "{name} had {a} {things} {when}. {Then} {b} of them were gone.",
        "{name} has {a} {things}. {other} has {b} fewer {things} than {name}.",
        "{name} {lost} {b} of the {a} {things}.",
        "{name} took {b} of the {a} {things} {when}.",
        "A shop had {a} {things}. {name} bought {b} of them in the shop.",
        "A shop had {a} {things}. It sold {b} {things} {when}.",
        "{name} {got} {a} {things} and {lost} {b} {then}. The others are left.",
    ),
    "groups": (
        "{name} has {a} {holders}. Each of them holds {b} {things}.",
        "{name} {got} {a} {holders} of {things} with {b} {things} in each.",
        "There are {a} {holders} of {things} with {b} {things} in every one.",
        "There are {a} {holders}. On each there are {b} {things}.",
        "{name} {got} {a} {things} every day for {b} days.",
        "Every day {name} {got} {a} {things}. It went on for {b} days.",
        "{a} {people} have {b} {things} each.",
        "{a} {people} {got} {b} {things} each.",
        "{name} gave {a} {things} to each of {b} {people}.",
        "A pack holds {a} {things}. {name} {got} {b} packs.",
        "Each of {a} {people} has {b} {things}.",
    ),
    "shares": (
        "{name} {shared} {a} {things} {fairly} {among} {b} {people}.",
        "{name} {shared} {a} {things} {among} {b} {people}, the same number for each.",
        "{name} {put} {a} {things} in {b} {holders}, the same number in each.",
        "{name} {put} {a} {things} into {b} equal {holders}.",
        "{name} has {a} {things} and {put} them in {holders} of {b}.",
        "{name} {put} {a} {things} in equal {holders} of {b}.",
        "{a} {things} are split into {b} equal {holders}.",
        "There are {a} {things} in {b} equal {holders}.",
        "{b} {people} {shared} {a} {things} {fairly}.",
        "{b} {people} share {a} {things} {fairly}.",
    ),
}

# What became of the things, in words and without a number.
OUTCOMES = {
    "gain": ("Now there are more {things}.", "The number of {things} went up.", "They were added."),
    "loss": ("Now there are fewer {things}.", "The number of {things} went down.", "They were taken away."),
    "groups": ("It was the same number many times.", "The number of {things} is many times as big."),
    "shares": ("The {things} were shared in equal parts.", "Each part is smaller than the whole."),
}

# Copies of the numbers, in the order of the story ({x} before {y}) or the other way round.
NOTES = (
    "First {x}, then {y}.",
    "The numbers were {x} and {y}.",
    "The last number is {y}. The first number is {x}.",
)

QUESTIONS = (
    "How many {things} does {name} have now?",
    "How many {things} does {name} have in all?",
    "How many {things} does {name} still have?",
    "How many {things} did {name} keep?",
    "How many {things} are in the {place} now?",
    "How many {things} are left?",
    "How many {things} do they have together?",
    "How many {things} did {name} get altogether?",
    "How many {things} are in each one?",
    "How many {holders} does {name} fill?",
    "How many {things} does each one get?",
    "How many {things} are there?",
)

# Two numbers in words: a story ends in such words, a bare equation is read out in them. Which symbol belongs
# to them is told beside equations only, never beside a story.
READINGS = {
    "+": ("{a} and {b} more", "{a} and {b} together"),
    "-": ("{a} without {b}", "{a} less {b}"),
    "*": ("{a} lots of {b}", "{a} times {b}"),
    "/": ("{a} shared by {b}", "{a} in parts of {b}"),
}
OPERATIONS = {"gain": "+", "loss": "-", "groups": "*", "shares": "/"}
