"""``count_tokens`` of the wrappers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from completion import (
    AnthropicModel,
    AsyncModel,
    ChatRequest,
    FallbackModel,
    OpenAIModel,
    RateLimitError,
    RetryConfig,
    RetryingModel,
    StreamChunk,
    UnsupportedContentError,
)
from completion.otel import traced
from completion.testing import ProviderServer, Reply, ScriptedModel, WaitFor
from completion.wrappers.third_party import ThirdPartyModel
from tests.loopback import HI, KEY, PATIENCE_S

COUNT = Reply.json({"input_tokens": 8})
OVERLOADED = Reply.json({"error": {"type": "overloaded_error", "message": "Later"}}, 529)
SLOW_DOWN = Reply.json({"error": {"type": "rate_limit_error", "message": "Slow"}}, 429)
AT_ONCE = RetryConfig(base_delay=0)


class Foreign:
    """A model of a third party: it cannot count."""

    name = "foreign"
    model = "f-1"

    def chat_stream(self, req: ChatRequest) -> Iterator[StreamChunk]:
        yield from ()


def anthropic(server: ProviderServer) -> AnthropicModel:
    return AnthropicModel("claude", api_key=KEY, base_url=server.url)


def test_a_count_is_retried(server: ProviderServer) -> None:
    for reply in (OVERLOADED, SLOW_DOWN, COUNT):
        server.reply(reply)
    assert RetryingModel(anthropic(server), AT_ONCE).count_tokens("Hi") == 8
    assert len(server.requests) == 3


def test_the_last_error_of_a_retried_count_says_how_many_attempts(server: ProviderServer) -> None:
    server.always(SLOW_DOWN)
    with pytest.raises(RateLimitError) as caught:
        RetryingModel(anthropic(server), AT_ONCE).count_tokens(HI)
    assert caught.value.attempts == 3


def test_a_model_that_cannot_count_is_not_retried() -> None:
    with pytest.raises(UnsupportedContentError) as caught:
        RetryingModel(Foreign(), AT_ONCE).count_tokens(HI)
    assert (caught.value.attempts, caught.value.provider, caught.value.model) == (1, "foreign", "f-1")


def test_the_first_of_several_models_counts(server: ProviderServer) -> None:
    server.reply(COUNT)
    assert FallbackModel([anthropic(server), OpenAIModel("m", api_key=KEY)]).count_tokens(HI) == 8


def test_a_traced_model_counts(server: ProviderServer) -> None:
    server.reply(COUNT)
    assert traced(anthropic(server)).count_tokens(HI) == 8


def test_a_model_of_a_third_party_says_that_it_cannot_count() -> None:
    with pytest.raises(UnsupportedContentError, match="foreign: count_tokens is not supported"):
        ThirdPartyModel(Foreign()).count_tokens(HI)


def test_a_scripted_model_guesses() -> None:
    model = ScriptedModel("Hello")
    assert model.count_tokens("x" * 400) == 104
    assert model.remaining == 1


def test_asyncio_counts_in_a_worker(server: ProviderServer) -> None:
    server.reply(COUNT)
    assert asyncio.run(AsyncModel(anthropic(server)).count_tokens("Hi")) == 8


def test_cancelling_the_task_closes_the_connection(server: ProviderServer) -> None:
    never = threading.Event()
    server.reply(Reply(b'{"input_', WaitFor(never)))

    async def main() -> None:
        task = asyncio.create_task(AsyncModel(anthropic(server)).count_tokens(HI))
        await asyncio.to_thread(server.wait_for_requests, 1, PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    never.set()
    assert server.wait_hung_up(PATIENCE_S)
