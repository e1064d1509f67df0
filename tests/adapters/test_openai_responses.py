"""OpenAIResponsesModel against a real server: truncated answers, reasoning that goes back, runs with tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

import completion
from completion import (
    ChatRequest,
    LocalModel,
    Message,
    OpenAIResponsesModel,
    ToolCallBlock,
    TransportError,
    TruncatedStreamError,
    run_chat,
    tool,
)
from completion.testing import Cut, ProviderServer, Reply, event
from tests.wire_pieces import cuts_of, read_to_the_end

KEY: Final = "sk-very-secret-0123456789"


@pytest.fixture(scope="module")
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def model(server: ProviderServer) -> OpenAIResponsesModel:
    return OpenAIResponsesModel("gpt-5.6", api_key=KEY, base_url=server.url + "/v1")


def sent(kind: str, **fields: Any) -> bytes:
    return event({"type": f"response.{kind}", **fields}, f"response.{kind}")


REASONING: Final = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "ENC"}
CALL: Final = {
    "id": "fc_1",
    "type": "function_call",
    "call_id": "c1",
    "name": "weather",
    "arguments": '{"city":"Bern"}',
}
END: Final = sent("completed", response={"id": "resp_1", "status": "completed", "usage": {"input_tokens": 9}})
TEXT: Final = sent("output_text.delta", output_index=0, content_index=0, item_id="m", delta="grün 🎉")
ASKED: Final = (
    sent("output_item.done", output_index=0, item=REASONING),
    sent("output_item.done", output_index=1, item=CALL),
)


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: sun"


def test_a_run_sends_the_reasoning_and_the_results_back(server: ProviderServer, model: OpenAIResponsesModel) -> None:
    server.reply(Reply(*ASKED, END), Reply(TEXT, END))
    before = len(server.requests)
    assert run_chat(model, "Bern?", tools=[weather]).collect().text == "grün 🎉"
    first, second = (request.json() for request in server.requests[before:])
    assert first["store"] is False and first["include"] == ["reasoning.encrypted_content"]
    assert second["input"] == [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Bern?"}]},
        REASONING,
        {name: value for name, value in CALL.items() if name != "id"},
        {"type": "function_call_output", "call_id": "c1", "output": "Bern: sun"},
    ]


def test_reasoning_goes_back_to_the_server_that_encrypted_it_only(server: ProviderServer) -> None:
    here = OpenAIResponsesModel("m", api_key=KEY, base_url=server.url)
    server.reply(Reply(*ASKED, END), Reply(TEXT, END), Reply(TEXT, END), Reply(TEXT, END))
    answer = here.chat_stream("Bern?").collect()
    history = ChatRequest([Message.user("Bern?"), answer.message, Message.tool_result("c1", "sun")])
    elsewhere = OpenAIResponsesModel("m", api_key=KEY, base_url=server.url.replace("127.0.0.1", "localhost"))
    chat = completion.model("openai-chat:m", api_key=KEY, base_url=server.url)
    for one in (here, elsewhere):
        one.chat_stream(history).collect()
    sent_here, sent_elsewhere = (json.dumps(request.json()) for request in server.requests[-2:])
    assert ("ENC" in sent_here, "ENC" in sent_elsewhere) == (True, False)
    with pytest.raises(TruncatedStreamError):  # the reply is an answer of the other wire
        chat.chat_stream(history).collect()
    assert "ENC" not in json.dumps(server.requests[-1].json())


@pytest.mark.parametrize("at", cuts_of(TEXT + END))
def test_an_answer_that_is_cut_anywhere_is_an_error(
    server: ProviderServer, model: OpenAIResponsesModel, at: int
) -> None:
    body = TEXT + END
    server.reply(Reply(body[:at], framing="close"))
    _, error = read_to_the_end(model.chat_stream, ChatRequest("hi"))
    # Only line ends after the last event may be missing.
    assert error is None if at >= len(body.rstrip()) else isinstance(error, TruncatedStreamError)


def test_a_broken_connection_is_an_error(server: ProviderServer, model: OpenAIResponsesModel) -> None:
    server.reply(Reply(TEXT, Cut()))
    _, error = read_to_the_end(model.chat_stream, ChatRequest("hi"))
    assert isinstance(error, TransportError)


def test_the_account_is_sent(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    server.reply(Reply(TEXT, END))
    OpenAIResponsesModel("m", api_key=KEY, base_url=server.url, project="proj-1").chat_stream("hi").collect()
    request = server.requests[-1]
    assert (request.header("openai-organization"), request.header("openai-project")) == ("org-1", "proj-1")


def test_llama_cpp_answers_a_history_with_a_call_and_its_result() -> None:
    with_server = LocalModel()
    model = OpenAIResponsesModel("local", api_key=with_server.api_key, base_url=with_server.base_url)
    asked = Message.assistant(["Hello", ToolCallBlock("c1", "weather", {"city": "Bern"})])
    history = [Message.user("Hi"), asked, Message.tool_result("c1", "sun"), Message.user("Well?")]
    turn = model.chat_stream(ChatRequest(history, max_tokens=8, system_prompt="Be brief.")).collect()
    assert turn.text
    assert turn.usage is not None and turn.usage.output_tokens
