import re
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmad import AdapterSpec, Sites, UsageError
from llmad.selector import GROUPS, Layers
from llmad.site import LINEAR_ROLES, ROLES

names = st.sampled_from([*ROLES, *GROUPS])
paths = st.from_regex(r"path:[a-z.]+(\.\*|\\d\+\.[a-z]+)?", fullmatch=True)
parts = st.builds(lambda name, before: name + "@before" * before, names | paths, st.booleans())
bounds = st.none() | st.integers(-12, 12)
written = st.builds(
    lambda *ends: ":".join("" if end is None else str(end) for end in ends),
    bounds,
    bounds,
    bounds.filter(lambda n: n != 0),
)


class Anywhere(AdapterSpec):
    """A method without options of its own."""

    name = "anywhere"
    sites: Sites = Sites("attn.q")


@given(st.lists(parts, min_size=1, max_size=4, unique=True))
def test_sites_read_back_what_they_print(texts):
    sites = Sites(*texts)
    assert Sites.parse(str(sites)) == sites == Sites.parse(texts)
    assert [part.text for part in Sites.parse(str(sites))] == texts


@given(st.lists(written | st.integers(-12, 12).map(str), min_size=1, max_size=4), st.integers(1, 12))
def test_layers_read_back_what_they_print(texts, count):
    layers = Layers.parse("+".join(texts))
    assert Layers.parse(str(layers)) == layers
    assert Layers.parse(texts).of(count) == layers.of(count)


@given(bounds, bounds, bounds.filter(lambda step: step != 0), st.integers(0, 12))
def test_a_slice_means_what_it_means_in_python(start, stop, step, count):
    text = ":".join("" if end is None else str(end) for end in (start, stop, step))
    assert Layers(text).of(count) == {text: set(range(count)[start:stop:step])}


@given(st.integers(-12, 12), st.integers(1, 12))
def test_a_number_means_what_it_means_in_python(number, count):
    try:
        meant = {range(count)[number]}
    except IndexError:
        meant = set()
    assert Layers(str(number)).of(count) == {str(number): meant}


@given(st.text(max_size=30) | st.text(alphabet="path:attn.q+@*[]{}()\\|-0123456789, ", max_size=30))
@example("path:a{99999999999999999999}")
@example("path:" + "(" * 5000)
@example("path:(")
@example("path:(a)+b")
@example("attn.q++attn.v")
@pytest.mark.filterwarnings("ignore:Possible (nested set|set):FutureWarning")  # re's word on odd expressions
def test_garbage_gives_a_value_error_and_no_other(text):
    for grammar in (Sites, Layers):
        try:
            value = grammar.parse(text)
        except ValueError:
            continue
        assert grammar.parse(str(value)) == value


@given(
    st.none() | st.booleans() | st.floats() | st.lists(st.none() | st.integers() | st.text(max_size=5)) | st.binary()
)
def test_other_data_gives_a_value_error_and_no_other(data):
    for grammar in (Sites, Layers):
        try:
            grammar.parse(data)
        except ValueError:
            continue


@given(st.text(max_size=20), st.text(max_size=20))
@pytest.mark.filterwarnings("ignore:Possible (nested set|set):FutureWarning")  # re's word on odd expressions
def test_a_spec_turns_garbage_into_a_usage_error(sites, layers):
    with suppress(UsageError):
        Anywhere.read({"sites": sites, "layers": layers})


def test_groups_mean_their_roles():
    groups = [set(GROUPS[name]) for name in ("attn.*", "mixer.*", "mlp.*", "expert.*")]
    assert set(LINEAR_ROLES) == set().union(*groups)
    assert set(GROUPS["linear"]) == set(LINEAR_ROLES) - set(GROUPS["expert.*"])


def test_an_unknown_role_names_the_nearest():
    with pytest.raises(ValueError, match=r"did you mean attn\.q"):
        Sites("attn.qq")


def test_a_part_given_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        Sites.parse("attn.q+attn.q")


def test_no_part_is_refused():
    with pytest.raises(ValueError, match="no site"):
        Sites()


def test_a_path_may_hold_plus_signs_that_no_letter_follows():
    sites = Sites.parse(r"path:model\.layers\.\d+\.mlp\.up+attn.q")
    assert [part.text for part in sites] == [r"path:model\.layers\.\d+\.mlp\.up", "attn.q"]


def test_a_path_that_could_not_be_read_back_is_refused():
    with pytest.raises(ValueError, match="plus"):
        Sites("path:a+b")


def test_a_step_of_zero_is_refused():
    with pytest.raises(ValueError, match="zero"):
        Layers("::0")


@pytest.mark.parametrize("value", [8, "8", [8], (8,), Layers("8")])
def test_layers_come_as_number_text_or_list(value):
    assert Layers.parse(value).of(9) == {"8": {8}}


def test_a_path_part_keeps_its_expression():
    (part,) = Sites("path:a.*@before")
    assert part.before
    assert part.path == re.compile("a.*")
