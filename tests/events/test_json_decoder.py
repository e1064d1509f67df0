"""The same values and errors as ``json.loads``, with and without msgspec."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from completion.events.json_decoder import best_decoder, decode_with_json

DECODERS = pytest.mark.parametrize(
    "decoder", [best_decoder(), decode_with_json], ids=["with msgspec, if it is installed", "json"]
)

ACCEPTED = [
    # numbers
    *("0", "-0", "-0.0", "1.0", "1E5", "1e-5", "1e999", "-1e999", "1e-999", "5e-324", "2.4e-324", "NaN", "Infinity"),
    *("-Infinity", "9223372036854775808", "-9223372036854775809", "18446744073709551615", "18446744073709551616"),
    *("12345678901234567890123", "-12345678901234567890123", "123456789012345678901234567890.5", "1" * 5000 + ".5"),
    *("1.7976931348623157e308", "1.7976931348623159e308", "1e" + "9" * 50, "9" * 4300, "-" + "9" * 4300),
    # strings
    *(r'"\ud83d"', r'"\ude00\ud83d"', r'"\ud83d\ude00"', '"\ud83d"', r'{"\ud83d": 1}', '{"\udfff": 1}', r'"\u0000"'),
    *('"\x7f\x80"', '"\u2028\u2029"', '"\ufeff"', r'"\/\b\f\n\r\t\"\\"', '""', '{"": ""}'),
    # objects and arrays
    *('{"a": 1, "a": 2}', '{"a": 1, "b": 2, "a": {}}', "[]", "{}", "[[], {}, null, true, false]"),
    *("[" * 500 + "]" * 500, '{"a":' * 500 + "1" + "}" * 500),
    # space around the JSON
    *(" 1", "1 ", "\n\t\r 1 \n\t\r", " \n[1 , 2 ]\n", '{"a" : 1}\r\n'),
]

REFUSED = [
    *("", " ", "nul", "True", "nan", "-NaN", "+1", "01", "-", ".5", "1.", "1e", "0x1", "1_0", "\u0661"),
    # The limit of Python for the digits of an integer, sys.get_int_max_str_digits()
    *("9" * 4301, "-" + "9" * 4301, "[" + "9" * 4301 + "]"),
    *('"a', "'a'", '"a\nb"', '"\x00"', '"\x1f"', '"\t"', r'"\x"', r'"\u12"', r'"\u12g4"'),
    *("[1,]", "[1", "[,1]", "]", '{"a":1,}', '{"a"}', "{1: 2}", "{a: 1}", "[1] // no", "/* no */ 1"),
    *("1 2", "[1]x", "{} {}", "1,", "[]]", "null\x00"),
    # space that is not JSON's
    *("\ufeff1", "\u00a01", "1\u00a0", "1\u2003", "\x0b1", "1\x0b", "1\x0c", "1\x85", "1\u2028", "[\u00a01]"),
]


def outcome(decoder: Callable[[str], Any], text: str) -> str:
    """The repr of the value, which also shows types, the sign of zero and NaN; or the type of the error."""
    try:
        value = decoder(text)
    except RecursionError:
        return "RecursionError"
    except ValueError:  # JSONDecodeError is one
        return "ValueError"
    if isinstance(value, int) and not isinstance(value, bool):
        return hex(value)  # the repr of a long one would be slow
    return repr(value)


@DECODERS
@pytest.mark.parametrize("text", ACCEPTED, ids=lambda text: ascii(text)[:40])
def test_json_is_decoded_to_the_same_value_and_type(decoder: Callable[[str], Any], text: str) -> None:
    json.loads(text)
    assert outcome(decoder, text) == outcome(json.loads, text)


@DECODERS
@pytest.mark.parametrize("text", REFUSED, ids=lambda text: ascii(text)[:40])
def test_text_that_is_not_json_is_a_value_error(decoder: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  each has its own message
        json.loads(text)
    with pytest.raises(ValueError):  # noqa: PT011
        decoder(text)


@DECODERS
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_json_that_is_nested_too_deeply_is_an_error(decoder: Callable[[str], Any], text: str) -> None:
    with pytest.raises((RecursionError, ValueError)):
        decoder(text)


@DECODERS
def test_floats_are_the_nearest_ones(decoder: Callable[[str], Any]) -> None:
    texts = ["0.1", "1e23", "9007199254740993.0", "2.2250738585072011e-308", "8.41e21", "0." + "3" * 400]
    assert [decoder(text) for text in texts] == [float(text) for text in texts]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TEXTS = st.builds(
    lambda value, is_ascii, indent: json.dumps(value, ensure_ascii=is_ascii, indent=indent),
    VALUES,
    st.booleans(),
    st.sampled_from([None, 1]),
)
TOKENS = st.lists(
    st.sampled_from(
        [
            *("{", "}", "[", "]", ":", ",", '"', '"a"', "0", "1", "-", ".", "e", "E5", "+", "null", "true", "NaN"),
            *(" ", "\n", "\\", "\\u", "d83d", "\ud83d", "\x0b", "\u00a0", "\x00", "9" * 20, "Infinity"),
        ]
    ),
    max_size=12,
).map("".join)


@DECODERS
@settings(deadline=None)
@given(text=TEXTS | TOKENS)
@example(text="1\u00a0")
def test_any_text_has_the_same_outcome_as_with_json(decoder: Callable[[str], Any], text: str) -> None:
    assert outcome(decoder, text) == outcome(json.loads, text)


@DECODERS
@settings(deadline=None)
@given(text=TEXTS, at=st.integers(0, 200), other=st.characters(exclude_categories=()))
def test_json_with_one_changed_character_has_the_same_outcome_as_with_json(
    decoder: Callable[[str], Any], text: str, at: int, other: str
) -> None:
    at %= len(text)
    changed = text[:at] + other + text[at + 1 :]
    assert outcome(decoder, changed) == outcome(json.loads, changed)
