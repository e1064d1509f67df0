"""ScriptedModel: texts, errors and steps as scripts."""

import threading

import pytest

from completion import (
    CancelToken,
    ChatRequest,
    CompletionModel,
    FinishReason,
    RateLimitError,
    StreamCancelledError,
    TextDelta,
    TransportError,
    TruncatedStreamError,
    TurnFinished,
)
from completion.testing import Pause, ScriptedModel, WaitFor

HI = ChatRequest("Hi")
END = TurnFinished(FinishReason.END_TURN)


def test_it_is_a_completion_model() -> None:
    assert isinstance(ScriptedModel(), CompletionModel)


def test_a_text_is_yielded_word_by_word() -> None:
    chunks = list(ScriptedModel(" Hello  there,\nyou. ").chat_stream(HI))
    assert [chunk.delta for chunk in chunks if isinstance(chunk, TextDelta)] == [" Hello", "  there,", "\nyou.", " "]
    assert chunks[-1] == TurnFinished(FinishReason.END_TURN, provider_reason="stop")


def test_an_error_as_a_script_is_raised_by_the_call() -> None:
    with pytest.raises(RateLimitError, match="slow down"):
        ScriptedModel(RateLimitError("slow down")).chat_stream(HI)


def test_an_error_as_a_step_is_raised_by_next() -> None:
    stream = ScriptedModel([TextDelta("Hel"), TransportError("reset")]).chat_stream(HI)
    assert next(stream) == TextDelta("Hel")
    with pytest.raises(TransportError, match="reset"):
        next(stream)
    assert list(stream) == []


def test_steps_without_a_turn_finished_raise_truncated_stream_error() -> None:
    with pytest.raises(TruncatedStreamError) as caught:
        ScriptedModel([TextDelta("Hel")]).chat_stream(HI).collect()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hel"


def test_it_records_its_requests() -> None:
    model = ScriptedModel("a", "b")
    model.chat_stream(HI).collect()
    model.chat_stream(ChatRequest("You?")).collect()
    assert model.requests == [HI, ChatRequest("You?")]


def test_a_call_without_a_script_is_an_assertion_error() -> None:
    model = ScriptedModel("only one")
    model.chat_stream(HI).collect()
    with pytest.raises(AssertionError, match="called 2 times but has 1 scripts"):
        model.chat_stream(HI)


def test_a_script_that_is_left_at_the_end_of_the_block_is_an_assertion_error() -> None:
    with pytest.raises(AssertionError, match="1 of its 2 scripts are left"), ScriptedModel("a", "b") as model:
        model.chat_stream(HI).collect()


def test_an_error_in_the_block_is_not_hidden() -> None:
    with pytest.raises(KeyError), ScriptedModel("a"):
        raise KeyError("the test's own")


def test_cancelling_ends_a_pause() -> None:
    stream = ScriptedModel([TextDelta("a"), Pause(60), END]).chat_stream(HI)
    next(stream)
    threading.Timer(0.05, stream.cancel).start()
    with pytest.raises(StreamCancelledError):
        next(stream)


def test_a_cancel_token_ends_a_wait() -> None:
    never = threading.Event()
    with CancelToken() as token:
        stream = ScriptedModel([WaitFor(never), END]).chat_stream(HI)
    threading.Timer(0.05, token.cancel).start()
    with pytest.raises(StreamCancelledError):
        next(stream)


def test_the_script_continues_when_the_event_is_set() -> None:
    go = threading.Event()
    stream = ScriptedModel([TextDelta("a"), WaitFor(go), TextDelta("b"), END]).chat_stream(HI)
    next(stream)
    go.set()
    assert next(stream) == TextDelta("b")


def test_each_thread_gets_its_own_script() -> None:
    model = ScriptedModel(*(str(i) for i in range(40)))
    said: list[str] = []
    threads = [
        threading.Thread(target=lambda: said.extend(model.chat_stream(HI).collect().text for _ in range(10)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said, key=int) == [str(i) for i in range(40)]


def test_it_accepts_the_same_requests_as_real_models() -> None:
    model = ScriptedModel("Hi")
    with pytest.raises(TypeError, match="ChatRequest"):
        model.chat_stream(["Hi"])  # type: ignore[arg-type]
    assert (model.requests, model.remaining) == ([], 1)
