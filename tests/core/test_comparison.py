"""What answers say of adapters: the table, the tests, and the words."""

import json

import pytest

from llmad.comparison import Size, compared
from llmad.significance import mcnemar, paired

SIZE = Size("lora[sites=a|b]", 1_000, 0.01)


def marks(right, n=20):
    return [place < right for place in range(n)]


def of(seeds=(0,), base=None, **answers):
    return compared("t", seeds, dict.fromkeys(answers, SIZE), answers, base or marks(2))


def test_adapters_with_other_answers_are_told_apart():
    found = of(a=[marks(20)], b=[marks(5)], c=[marks(19)])
    (first, second, third) = found.pairs
    assert (first.first, first.second, first.difference) == ("a", "b", 0.75)
    assert first.p == mcnemar(15, 0)
    assert first.corrected == 3 * first.p
    assert (second.first, second.second, second.p) == ("a", "c", 1.0)
    assert (third.first, third.second) == ("c", "b")  # who is ahead comes first
    assert found.best.adapter == "a"
    said = found.words()
    assert said[0] == "a is better than b by 75.0 points (p 2e-04)."
    assert said[1].startswith("c is better than b by 70.0 points")
    assert said[2] == "These 20 questions show no difference between a and c (p 1.000)."


def test_where_nothing_is_shown_the_words_say_so():
    said = of(a=[marks(10)], b=[marks(12)]).words()
    assert said == [
        "These 20 questions show no difference between the adapters: the smallest p is 0.500. That is not to say that "
        "there is none; more questions may show one."
    ]


def test_the_correction_counts():
    """Five questions more are a difference by themselves, and none among six pairs."""
    assert of(a=[marks(16)], b=[marks(10)]).pairs[0].told_apart
    six = of(a=[marks(16)], b=[marks(10)], c=[marks(13)], d=[marks(13)])
    assert not any(pair.told_apart for pair in six.pairs)


def test_one_adapter_has_none_to_be_compared_with():
    found = of(a=[marks(10)])
    assert found.words() == ["There is one adapter, and none to compare it with."]
    assert found.rows()[1]["difference"] == "best"


def test_several_seeds_are_a_mean_with_a_spread():
    found = of(seeds=(0, 1), a=[marks(10), marks(14)], b=[marks(3), marks(3)])
    row = found.rows()[1]
    assert (row["accuracy"], row["spread"]) == ("60.0%", "50.0% to 70.0%")
    assert found.pairs[0].p == paired([0] * 3 + [2] * 7 + [1] * 4 + [0] * 6)
    assert found.test.startswith("exact permutation")


def test_the_table_has_the_base_first_and_differences_to_the_best():
    rows = of(a=[marks(10)], b=[marks(20)]).rows()
    assert [row["adapter"] for row in rows] == ["base", "a", "b"]
    assert [row["difference"] for row in rows] == ["-90.0", "-50.0", "best"]
    assert [row["p"] for row in rows] == ["-", "0.002", "-"]
    assert rows[0]["interval"] == "2.8% to 30.1%"
    assert (rows[1]["parameters"], rows[1]["share"]) == ("1,000", "1.00%")


def test_it_is_plain_data_and_a_page():
    found = of(a=[marks(10)], b=[marks(20)])
    told = json.loads(json.dumps(found.describe()))
    assert told["best"] == "b"
    assert told["pairs"][0]["first"] == "b"
    assert told["words"] == found.words()
    page = found.markdown()
    assert "| a | `lora[sites=a\\|b]` | 1,000 | 1.00% | 50.0% |" in page
    assert "b is better than a by 50.0 points" in page


def test_answers_to_other_questions_are_not_compared():
    with pytest.raises(ValueError, match="zip"):
        of(a=[marks(10)], b=[marks(10, 21)])
