"""``text_stream`` and ``result`` of a run."""

from __future__ import annotations

import pytest

from completion import OverloadedError, RunStream, TextDelta, run_chat
from completion.testing import ScriptedModel
from tests.loopback import HI
from tests.runs import called, named, turn


def two_turns() -> RunStream:
    model = ScriptedModel(turn("Wait. ", called("now")), turn("No", "on."))
    return run_chat(model, HI, [named("now")])


def test_text_stream_yields_the_text_of_all_turns() -> None:
    assert list(two_turns().text_stream) == ["Wait. ", "No", "on."]


def test_after_text_stream_the_result_is_known() -> None:
    run = two_turns()
    for _ in run.text_stream:
        with pytest.raises(RuntimeError, match="result is not known yet"):
            _ = run.result
    assert run.result.text == "Noon."
    assert run.collect() == run.result


def test_after_a_plain_for_loop_the_result_is_known() -> None:
    run = two_turns()
    for chunk in run:
        if chunk.type != "run_finished":
            with pytest.raises(RuntimeError, match="result is not known yet"):
                _ = run.result
    assert run.result.text == "Noon."


def test_a_run_that_was_closed_or_failed_has_no_result() -> None:
    closed, failed = two_turns(), run_chat(ScriptedModel([TextDelta("a"), OverloadedError("busy")]), HI)
    next(closed)
    closed.close()
    with pytest.raises(OverloadedError):
        list(failed)
    for run in (closed, failed):
        with pytest.raises(RuntimeError, match="there is no result"):
            _ = run.result


def test_a_run_has_no_turn() -> None:
    run = two_turns()
    run.collect()
    with pytest.raises(AttributeError, match="no turn, because a run has several; use result"):
        _ = run.turn


def test_an_error_in_text_stream_carries_the_text_so_far() -> None:
    run = run_chat(ScriptedModel([TextDelta("a"), OverloadedError("busy")]), HI)
    with pytest.raises(OverloadedError) as caught:
        list(run.text_stream)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "a"
