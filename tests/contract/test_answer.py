"""The JSON in the text of an answer is the same wherever the text is cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pydantic")
pytest.importorskip("jsonschema")

from completion import JsonSchema
from completion.contract.answer import Answer, AnswerReader

ANSWERS = [
    Answer(JsonSchema("object", {"type": "object", "properties": {"name": {"type": "string"}, "size": {}}})),
    Answer(JsonSchema("open", {"type": "object"})),
    Answer(JsonSchema("list", {"type": "array"})),
]
WORDS = [
    *("{", "}", "[", "]", '"name"', '"value"', '"x"', ": ", ", ", "1", "tr", "ue", "null", '"a\\"b"', '"', "\\ud83d"),
    *("<think>", "</think>", "<thi", "nk>", "<", "```json\n", "\n```", " prose ", "\ufeff"),
    *('{"name": "Oslo"}', '{"value": [1, 2]}', '{"a": {"name": 1}}'),
]


def read(answer: Answer, pieces: list[str]) -> tuple[list[Any], Any]:
    """The values that are shown, and the data or the problem."""
    reader = AnswerReader(answer)
    shown = [reader.value for piece in pieces if reader.feed(piece)]
    try:
        return shown, reader.result()
    except ValueError as exc:
        return shown, exc.args


@given(st.sampled_from(ANSWERS), st.lists(st.sampled_from(WORDS), max_size=12), st.integers(1, 5))
def test_the_answer_does_not_depend_on_the_pieces(answer: Answer, words: list[str], size: int) -> None:
    text = "".join(words)
    shown, result = read(answer, [text])
    cut, cut_result = read(answer, [text[start : start + size] for start in range(0, len(text), size)])
    assert cut_result == result
    assert cut[-1:] == shown
    if shown and not isinstance(result, tuple):
        assert answer.unwrapped_so_far(result) == shown[-1]


@pytest.mark.parametrize(
    "kind", [{"type": "string"}, {"anyOf": [{"type": "object"}]}, {}, {"type": ["object", "null"]}]
)
def test_a_schema_that_is_not_one_of_objects_is_wrapped(kind: dict[str, Any]) -> None:
    answer = Answer(JsonSchema("any", kind))
    assert answer.schema["properties"] == {"value": kind}


def test_definitions_stay_at_the_root_of_a_wrapped_schema() -> None:
    answer = Answer(JsonSchema("list", {"type": "array", "items": {"$ref": "#/$defs/a"}, "$defs": {"a": {}}}))
    assert answer.schema["$defs"] == {"a": {}}
    assert "$defs" not in answer.schema["properties"]["value"]
