"""OllamaModel against a scripted server."""

from __future__ import annotations

import json
from typing import Any

import pytest

import completion
from completion import (
    ChatRequest,
    CompletionError,
    FinishReason,
    InvalidRequestError,
    Message,
    NotFoundError,
    OllamaClient,
    OllamaModel,
    ProviderError,
    ReasoningBlock,
    ServerError,
    TextBlock,
    ToolCallBlock,
    TruncatedStreamError,
    Usage,
)
from completion.testing import ProviderServer, Reply
from completion.testing.conformance import check_completion_model
from tests.loopback import HI, failure_of

NDJSON = "application/x-ndjson"


def line(data: dict[str, Any]) -> bytes:
    return f"{json.dumps(data)}\n".encode()


def said(**fields: Any) -> bytes:
    return line({"model": "m-1", "message": {"role": "assistant", "content": "", **fields}, "done": False})


DONE = line({"model": "m-1", "done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 4})
CALL = {"function": {"name": "f", "arguments": {"a": 1}}}
TURN = Reply(
    said(thinking="hm"), said(content="Let me look."), said(tool_calls=[CALL]), DONE, content_type=NDJSON
)  # fmt: skip


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/", "/api"])
def test_a_turn_is_read_and_goes_back(server: ProviderServer, suffix: str) -> None:
    server.always(TURN)
    model = OllamaModel("qwen3", base_url=server.url + suffix)
    turn = model.chat_stream(HI).collect()
    thought, text, call = turn.message.blocks
    assert isinstance(call, ToolCallBlock)
    assert (thought, text) == (ReasoningBlock("hm"), TextBlock("Let me look."))
    assert (turn.reason, turn.usage, turn.response_model) == (FinishReason.TOOL_USE, Usage(9, 4), "m-1")
    history = [Message.user("Hi"), turn.message, Message.tool_result(call.call_id, "1")]
    model.chat_stream(ChatRequest(history)).collect()
    first, second = server.requests
    assert first.path == second.path == "/api/chat"
    assert first.header("accept") == NDJSON
    assert first.header("authorization") is None
    sent = second.json()
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "tool"]
    assert sent["messages"][1]["thinking"] == "hm"
    assert sent["messages"][2]["tool_name"] == "f"


@pytest.mark.parametrize(
    ("variable", "value", "url"),
    [
        ("OLLAMA_HOST", "10.0.0.7", "http://10.0.0.7:11434"),
        ("OLLAMA_HOST", "0.0.0.0", "http://127.0.0.1:11434"),
        ("OLLAMA_HOST", "0.0.0.0:8000", "http://127.0.0.1:8000"),
        ("OLLAMA_HOST", "http://0.0.0.0:11434", "http://127.0.0.1:11434"),
        ("OLLAMA_HOST", "[::]:8000", "http://[::1]:8000"),
        ("OLLAMA_HOST", ":8000", "http://localhost:8000"),
        ("OLLAMA_HOST", "box.example:8000", "http://box.example:8000"),
        ("OLLAMA_HOST", "https://box.example/", "https://box.example"),
        ("OLLAMA_HOST", "box.example/ollama", "http://box.example:11434/ollama"),
        ("OLLAMA_HOST", "[::1]:8000", "http://[::1]:8000"),
        ("OLLAMA_HOST", " ", "http://localhost:11434"),
        ("OLLAMA_BASE_URL", "http://box:11434/v1", "http://box:11434"),
        ("OTHER", "", "http://localhost:11434"),
    ],
)
def test_the_environment_says_where_the_server_is(
    variable: str, value: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert completion.model("ollama:m").base_url == url  # type: ignore[attr-defined]


def test_a_password_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "user:secret@box")
    error = failure_of(OllamaClient)
    assert "secret" not in str(error)


def test_a_key_is_sent_if_there_is_one(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "k-1")
    server.always(TURN)
    OllamaModel("m", base_url=server.url).chat_stream(HI).collect()
    assert server.requests[0].header("authorization") == "Bearer k-1"


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (404, "model 'x' not found", NotFoundError),
        (400, '"x" does not support tools', InvalidRequestError),
        (500, "model runner has unexpectedly stopped", ServerError),
    ],
)
def test_a_refusal_has_the_servers_words(
    server: ProviderServer, status: int, message: str, kind: type[CompletionError]
) -> None:
    server.reply(Reply(line({"error": message}), status=status, content_type="application/json; charset=utf-8"))
    error = failure_of(lambda: OllamaModel("x", base_url=server.url).chat_stream(HI))
    assert type(error) is kind
    assert message in str(error)


def test_an_error_line_is_raised(server: ProviderServer) -> None:
    server.reply(Reply(said(content="a"), line({"error": "the runner stopped"}), content_type=NDJSON))
    error = failure_of(lambda: OllamaModel("m", base_url=server.url).chat_stream(HI).collect())
    assert isinstance(error, ProviderError)
    assert str(error).startswith("ollama: the runner stopped")


def test_a_body_without_done_is_truncated(server: ProviderServer) -> None:
    server.reply(Reply(said(content="a"), content_type=NDJSON))
    error = failure_of(lambda: OllamaModel("m", base_url=server.url).chat_stream(HI).collect())
    assert type(error) is TruncatedStreamError


def test_the_model_keeps_the_contract() -> None:
    check_completion_model(lambda **options: OllamaModel("m", **options), answer="ollama")
