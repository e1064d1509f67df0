"""Long tool results are cut, and the model reads how long they were."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from completion import (
    Base64Source,
    Block,
    Conversation,
    ImageBlock,
    Redaction,
    RunConfig,
    TextBlock,
    ToolError,
    ToolResultBlock,
    run_chat,
)
from completion.engine.cutting import shortened
from completion.testing import ScriptedModel
from tests.loopback import HI
from tests.runs import called, end_of, named, results_in, turn

IMAGE = ImageBlock(Base64Source("image/png", "aaaa"))


def result_of(function: Any, middleware: Any = (), **config: Any) -> ToolResultBlock:
    model = ScriptedModel(turn(called("now")), turn("ok"))
    end = end_of(run_chat(model, HI, [named("now", function)], middleware, RunConfig(**config)))
    return results_in(end.new_messages)[0]


def text_of(result: ToolResultBlock) -> str:
    return "".join(block.text for block in result.blocks if isinstance(block, TextBlock))


def test_a_long_result_keeps_its_beginning_and_its_end() -> None:
    text = text_of(result_of(lambda: "begin" + "x" * 5000 + "end", max_result_chars=400))
    assert text.startswith("beginxxx")
    assert text.endswith("xxxend")
    assert "cut here: the whole result has 5,008 characters" in text
    assert len(text) == 400


def test_the_chunk_and_the_history_contain_the_same_result() -> None:
    model = ScriptedModel(turn(called("now")), turn("ok"))
    run = run_chat(model, HI, [named("now", lambda: "x" * 5000)], config=RunConfig(max_result_chars=400))
    chunks = [chunk for chunk in run if chunk.type == "tool_result"]
    assert [chunk.blocks for chunk in chunks] == [one.blocks for one in results_in(run.result.new_messages)]


@pytest.mark.parametrize(
    ("length", "config"), [(400, {"max_result_chars": 400}), (200_000, {"max_result_chars": None})]
)
def test_a_result_within_the_limit_is_unchanged(length: int, config: dict[str, Any]) -> None:
    assert text_of(result_of(lambda: "x" * length, **config)) == "x" * length


def test_there_is_a_limit_by_default() -> None:
    assert len(text_of(result_of(lambda: "x" * 1_000_000))) == 100_000


def test_the_message_of_an_error_is_cut_too() -> None:
    def fail() -> None:
        raise ToolError("x" * 5000)

    result = result_of(fail, max_result_chars=400)
    assert result.is_error
    assert len(text_of(result)) == 400


def test_images_stay_and_do_not_count() -> None:
    blocks: list[Block] = [TextBlock("a" * 300), IMAGE, TextBlock("b" * 300), TextBlock("c" * 300)]
    result = result_of(lambda: blocks, max_result_chars=300)
    assert IMAGE in result.blocks
    assert text_of(result).startswith("aaa")
    assert text_of(result).endswith("ccc")
    assert "b" not in text_of(result).replace("characters", "")
    assert len(text_of(result)) <= 300


def test_a_secret_is_removed_before_the_cut() -> None:
    result = result_of(
        lambda: "x" * 180 + "sk-secret-value" + "y" * 5000,
        [Redaction(re.compile("sk-secret-value"))],
        max_result_chars=350,
    )
    assert "sk-" not in text_of(result)


@pytest.mark.parametrize("unit", ["e\u0301", "\U0001f469\u200d\U0001f680", "\U0001f44b\U0001f3fd", "\ud83d\ude80"])
def test_no_character_is_cut_in_half(unit: str) -> None:
    for limit in range(150, 160):
        result = shortened(ToolResultBlock("c1", unit * 500), limit)
        head, _, tail = text_of(result).partition("\n[…")
        tail = tail.partition("…]\n")[2]
        assert head == unit * (len(head) // len(unit))
        assert tail == unit * (len(tail) // len(unit))


@given(st.lists(st.text(max_size=80), min_size=1, max_size=5), st.integers(120, 200))
def test_a_cut_result_is_within_the_limit_and_shows_its_ends(pieces: list[str], limit: int) -> None:
    result = ToolResultBlock("c1", [TextBlock(piece) for piece in pieces])
    whole, cut = "".join(pieces), shortened(result, limit)
    if len(whole) <= limit:
        assert cut is result
        return
    assert len(text_of(cut)) <= limit
    head, _, tail = text_of(cut).partition("\n[… cut here")
    assert whole.startswith(head)
    assert whole.endswith(tail.partition("…]\n")[2])


def test_the_limit_is_part_of_a_stored_conversation() -> None:
    stored = Conversation(ScriptedModel(), config=RunConfig(max_result_chars=77)).to_json()
    assert Conversation.from_json(stored, ScriptedModel()).config.max_result_chars == 77
    document = json.loads(stored)
    del document["config"]["max_result_chars"]  # from a version without the limit
    assert Conversation.from_json(json.dumps(document), ScriptedModel()).config.max_result_chars == 100_000


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "9"])
def test_a_limit_that_is_not_a_whole_number_is_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match="max_result_chars"):
        RunConfig(max_result_chars=limit)
