"""JSON that grows: every value that is shown is a state on the way to the last one."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from completion.contract.growing import MAX_DEPTH, NOTHING, GrowingJson, read_json

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=25)


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    marks = [0, *sorted({cut % (len(text) + 1) for cut in cuts}), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(marks)]


def grown(*pieces: str) -> tuple[GrowingJson, list[Any]]:
    reader, shown = GrowingJson(), []
    for piece in pieces:
        reader.feed(piece)
        if reader.has_grown:
            shown.append(reader.snapshot())
    reader.finish()
    if reader.has_grown:
        shown.append(reader.snapshot())
    return reader, shown


def is_state_of(early: Any, late: Any) -> bool:
    """Whether nothing that ``early`` shows is missing or different in ``late``."""
    if isinstance(early, str) and isinstance(late, str):
        return late.startswith(early)
    if isinstance(early, dict) and isinstance(late, dict):
        return all(key in late and is_state_of(value, late[key]) for key, value in early.items())
    if isinstance(early, list) and isinstance(late, list):
        return len(early) <= len(late) and all(map(is_state_of, early, late))
    return type(early) is type(late) and bool(early == late)


@given(VALUES, st.lists(st.integers(0, 10_000), max_size=30), st.booleans(), st.sampled_from([None, 1]))
def test_each_value_is_a_state_of_the_next_and_the_last_is_the_whole(
    value: Any, cuts: list[int], ascii: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii, indent=indent)
    reader, shown = grown(*pieces_of(text, cuts))
    assert reader.problem is None
    assert all(map(is_state_of, shown, shown[1:]))
    assert shown[-1] == read_json(text) == value


@given(VALUES, st.lists(st.integers(0, 10_000), max_size=30))
def test_a_snapshot_never_changes_later(value: Any, cuts: list[int]) -> None:
    reader, kept = GrowingJson(), []
    for piece in pieces_of(json.dumps(value), cuts):
        reader.feed(piece)
        snapshot = reader.snapshot()
        if snapshot is not NOTHING:
            kept.append((snapshot, json.dumps(snapshot)))
    assert [json.dumps(snapshot) for snapshot, _ in kept] == [text for _, text in kept]


@given(st.text(alphabet='{}[]",:\\ud8301eE.+-truefalsn \n\ud83d'))
def test_any_text_is_read_or_refused_as_json_does(text: str) -> None:
    reader, shown = grown(*text)
    try:
        value = read_json(text)
    except ValueError:
        # The reader stops after a complete value, json.loads refuses what follows it.
        assert reader.problem is not None or reader.is_closed
    else:
        assert (reader.problem, shown[-1]) == (None, value)


def test_open_strings_are_shown_and_open_numbers_and_literals_are_not() -> None:
    _, shown = grown('{"a": "', "Os", 'lo", "b": 1', "2", ', "c": tr', "ue}")
    assert shown == [
        {"a": ""}, {"a": "Os"}, {"a": "Oslo"}, {"a": "Oslo", "b": 12}, {"a": "Oslo", "b": 12, "c": True},
    ]  # fmt: skip


def test_a_key_is_shown_together_with_its_value() -> None:
    assert grown('{"na', 'me"', ": ", "[")[1] == [{}, {"name": []}]


def test_a_surrogate_pair_is_shown_when_both_halves_are_there() -> None:
    assert grown('["\\ud83d', "\\ude00", '"]')[1] == [[""], ["😀"]]


@pytest.mark.parametrize("half", ["\\ud83d", "\\ude00"])
def test_half_of_a_surrogate_pair_is_replaced(half: str) -> None:
    text = f'["{half}!"]'
    assert grown(*text)[1][-1] == read_json(text) == ["\ufffd!"]


def test_a_key_that_occurs_twice_has_its_last_value() -> None:
    text = '{"a": [1, 2], "a": [3]}'
    assert grown('{"a": [1, 2], "a": [', "3", "]}")[1][-1] == {"a": [3]}
    assert read_json(text) == {"a": [3]}


def test_control_characters_in_strings_are_accepted() -> None:
    assert grown('["a\n\tb"]')[1] == [["a\n\tb"]] == [read_json('["a\n\tb"]')]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"[{'1' * 5000}]", "too many digits"),
        ("[1e999]", "too large"),
        ("[-1e999]", "too large"),
        ("[NaN]", "NaN"),
        ("[Infinity]", "Infinity"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested deeper"),
        ("[" * 200_000, "nested deeper|Expecting value"),
    ],
)
def test_what_python_and_json_cannot_carry_is_refused(text: str, problem: str) -> None:
    reader, _ = grown(text)
    assert reader.problem is not None
    with pytest.raises(ValueError, match=problem):
        read_json(text)


def test_the_deepest_allowed_value_is_read() -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert grown(*text)[1][-1] == read_json(text)


def test_long_numbers_below_the_limit_are_exact() -> None:
    number = int("7" * 4300)
    assert grown(f"[{number}]")[1] == [[number]] == [read_json(f"[{number}]")]


def test_nothing_is_read_after_the_value() -> None:
    reader = GrowingJson()
    assert reader.feed('{"a": 1} {"b": 2}') == len('{"a": 1}')
    assert reader.is_closed
    assert reader.snapshot() == {"a": 1}
