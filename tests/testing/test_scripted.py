"""ScriptedModel: what a test can say with a script."""

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


def test_a_text_comes_word_by_word_and_adds_up() -> None:
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


def test_steps_without_an_end_are_truncated() -> None:
    with pytest.raises(TruncatedStreamError) as caught:
        ScriptedModel([TextDelta("Hel")]).chat_stream(HI).collect()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hel"


def test_it_records_its_requests() -> None:
    model = ScriptedModel("a", "b")
    model.chat_stream(HI).collect()
    model.chat_stream(ChatRequest("You?")).collect()
    assert model.requests == [HI, ChatRequest("You?")]


def test_a_call_too_many_says_so() -> None:
    model = ScriptedModel("only one")
    model.chat_stream(HI).collect()
    with pytest.raises(AssertionError, match="called 2 times and has 1 scripts"):
        model.chat_stream(HI)


def test_leaving_the_with_tells_of_scripts_left_over() -> None:
    with pytest.raises(AssertionError, match="1 of its 2 scripts are left"), ScriptedModel("a", "b") as model:
        model.chat_stream(HI).collect()


def test_leaving_the_with_by_an_error_does_not_hide_it() -> None:
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


def test_an_event_lets_the_script_go_on() -> None:
    go = threading.Event()
    stream = ScriptedModel([TextDelta("a"), WaitFor(go), TextDelta("b"), END]).chat_stream(HI)
    next(stream)
    go.set()
    assert next(stream) == TextDelta("b")


def test_threads_get_a_script_each() -> None:
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


def test_it_takes_what_real_models_take() -> None:
    model = ScriptedModel("Hi")
    with pytest.raises(TypeError, match="ChatRequest"):
        model.chat_stream(["Hi"])  # type: ignore[arg-type]
    assert (model.requests, model.remaining) == ([], 1)
