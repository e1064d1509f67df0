"""LocalModel: the answers of a real model, through the wire of Chat Completions."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

import pytest
import requests

import completion
from completion import (
    AuthenticationError,
    ChatRequest,
    ConfigurationError,
    ContextOverflowError,
    FinishReason,
    JsonSchema,
    LocalModel,
    Message,
    OpenAIModel,
    TextDelta,
    ToolCallBlock,
    ToolCallMalformed,
    ToolChoice,
    ToolDefinition,
    ToolResultBlock,
    TurnFinished,
    UnsupportedContentError,
)
from completion.embedded.server import Server, serve
from completion.embedded.template import CHAT_TEMPLATE
from completion.embedded.weights import weights_path
from completion.testing import ProviderServer

DETERMINISTIC: Final[dict[str, Any]] = {"temperature": 0.0, "seed": 1}
BRIEF = ChatRequest("Say hello.", max_tokens=8, **DETERMINISTIC)


def test_the_answer_is_yielded_token_by_token() -> None:
    chunks = list(LocalModel().chat_stream(BRIEF))
    deltas = [chunk.delta for chunk in chunks if isinstance(chunk, TextDelta)]
    assert 1 < len(deltas) <= 8
    assert "".join(deltas).strip()
    end = chunks[-1]
    assert isinstance(end, TurnFinished)
    assert end.usage is not None
    assert end.usage.output_tokens == 8
    assert end.reason in (FinishReason.END_TURN, FinishReason.MAX_TOKENS)


def test_the_registry_makes_it_without_a_model_id() -> None:
    model = completion.model("local")
    assert (model.name, model.model) == ("local", "SmolLM2-135M-Instruct")
    assert isinstance(model, LocalModel)


def test_models_of_one_file_share_one_server() -> None:
    assert LocalModel().base_url == LocalModel().base_url == LocalModel(path=weights_path()).base_url


def test_another_client_can_use_its_server() -> None:
    local = LocalModel()
    other = OpenAIModel("any", base_url=local.base_url, api_key=local.api_key)
    assert other.chat_stream(BRIEF).collect().text == local.chat_stream(BRIEF).collect().text


def test_the_server_refuses_requests_without_the_key() -> None:
    with pytest.raises(AuthenticationError):
        OpenAIModel("any", base_url=LocalModel().base_url, api_key="guessed").chat_stream(BRIEF)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_no_proxy_of_the_environment_gets_the_prompt_or_the_key(
    variable: str, server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, server.url)
    assert LocalModel().chat_stream(BRIEF).collect().text
    assert server.connections == 0


@pytest.mark.parametrize("scheme", ["http", "all", "http://127.0.0.1", "all://127.0.0.1"])
def test_no_proxy_of_a_session_gets_the_prompt_or_the_key(scheme: str, server: ProviderServer) -> None:
    with requests.Session() as session:
        session.proxies = {scheme: server.url}
        assert LocalModel(session=session).chat_stream(BRIEF).collect().text
    assert server.connections == 0


def test_certificates_and_passwords_of_the_environment_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password wrong\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    assert LocalModel().chat_stream(BRIEF).collect().text


def test_a_conversation_goes_on() -> None:
    model = LocalModel()
    first = model.chat_stream(BRIEF).collect()
    history = [Message.user("Say hello."), first.message, Message.user("Again.")]
    second = model.chat_stream(ChatRequest(history, max_tokens=8, system_prompt="Be brief.", **DETERMINISTIC)).collect()
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens


def test_the_answer_fits_a_given_schema() -> None:
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
    req = ChatRequest("Name a colour.", max_tokens=40, response_format=JsonSchema("colour", schema), **DETERMINISTIC)
    assert json.loads(LocalModel().chat_stream(req).collect().text)["colour"] in ("red", "blue")


def test_a_prompt_over_the_context_is_an_overflow() -> None:
    with pytest.raises(ContextOverflowError):
        LocalModel().chat_stream(ChatRequest("word " * 30_000))


def test_after_a_break_the_server_is_free_for_the_next_request() -> None:
    model = LocalModel()
    for _ in range(8):
        for _chunk in model.chat_stream(ChatRequest("Count to a thousand.", max_tokens=2000, **DETERMINISTIC)):
            break
    assert model.chat_stream(BRIEF).collect().text


def test_four_threads_are_answered_at_a_time() -> None:
    model = LocalModel()
    said: list[str] = []
    threads = [threading.Thread(target=lambda: said.append(model.chat_stream(BRIEF).collect().text)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(said) == 4
    assert all(said)


def test_it_can_be_pickled() -> None:
    copy = pickle.loads(pickle.dumps(LocalModel()))
    assert copy.chat_stream(BRIEF).collect().text


def test_another_model_can_be_used_by_the_path_of_its_file(tmp_path: Path) -> None:
    assert LocalModel("some/other.gguf").model == LocalModel(path="some/other.gguf").model == "other"
    with pytest.raises(ConfigurationError, match="give another model as"):
        LocalModel("llama-3-70b")
    with pytest.raises(ConfigurationError, match=r"missing\.gguf"):
        LocalModel(path=tmp_path / "missing.gguf").chat_stream(BRIEF)


def test_without_the_extra_the_error_says_what_to_install() -> None:
    source = (
        "import sys; sys.modules['xllamacpp'] = None\n"
        "import completion\n"
        "try: completion.model('local').chat_stream(completion.ChatRequest('Hi'))\n"
        "except completion.ConfigurationError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert f"{sys.executable} -m pip install xllamacpp" in done.stdout


def test_its_repr_shows_no_key() -> None:
    model = LocalModel()
    assert model.api_key not in repr(model) + repr(vars(model))


CITY = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}
WEATHER = ToolDefinition("weather", "The weather of a city.", CITY)
NOW = ToolDefinition("now", "The time.", {"type": "object", "properties": {}})


def asking(choice: ToolChoice | None, **fields: Any) -> ChatRequest:
    return ChatRequest(
        "Is it raining in Oslo?",
        **{**DETERMINISTIC, "max_tokens": 60, "tools": [WEATHER, NOW], "tool_choice": choice, **fields},
    )


def prompt_of(server: Server, messages: list[dict[str, str]]) -> str:
    """The prompt that the server makes of the messages."""
    response = requests.post(
        server.base_url.removesuffix("/v1") + "/apply-template",
        headers={"Authorization": f"Bearer {server.api_key}"},
        json={"messages": messages},
        timeout=60,
    )
    prompt: str = response.json()["prompt"]
    return prompt


@pytest.mark.parametrize("choice", [ToolChoice.any(), ToolChoice.tool("weather")], ids=["any", "by name"])
def test_the_arguments_of_a_forced_call_fit_the_schema(choice: ToolChoice) -> None:
    turn = LocalModel().chat_stream(asking(choice, tools=[WEATHER])).collect()
    (call,) = turn.tool_calls
    assert (turn.reason, call.name) == (FinishReason.TOOL_USE, "weather")
    assert call.args["city"] in ("Oslo", "Rome")
    assert not turn.text


def test_a_forced_turn_is_one_call() -> None:
    chance: dict[str, Any] = {"tools": [WEATHER], "temperature": 1.0}
    requests_ = [
        asking(ToolChoice.any(), **chance, seed=n, parallel_tool_use=None if n % 2 else False) for n in range(12)
    ]
    turns = [LocalModel().chat_stream(request).collect() for request in requests_]
    assert [(len(turn.tool_calls), turn.malformed_calls) for turn in turns] == [(1, ())] * 12


@pytest.mark.parametrize(("parallel", "cities"), [(None, ["Oslo", "Rome"]), (False, ["Oslo"])])
def test_a_turn_is_one_call_without_parallel_tool_use(parallel: bool | None, cities: list[str]) -> None:
    """Without the option, the model makes two calls, because all turns of the history have two."""
    question = Message.user("Is it raining in Oslo and in Rome?")
    calls = [ToolCallBlock("c1", "weather", {"city": "Oslo"}), ToolCallBlock("c2", "weather", {"city": "Rome"})]
    results = [ToolResultBlock("c1", "yes"), ToolResultBlock("c2", "no")]
    history = [question, Message.assistant(calls), Message.user(results), Message.assistant("In Oslo.")] * 3
    request = ChatRequest(
        [*history, question], max_tokens=120, tools=[WEATHER], parallel_tool_use=parallel, **DETERMINISTIC
    )
    turn = LocalModel().chat_stream(request).collect()
    assert turn.reason is FinishReason.TOOL_USE
    assert [call.args["city"] for call in turn.tool_calls] == cities


def test_a_tool_can_be_forced_by_its_name() -> None:
    turn = LocalModel().chat_stream(asking(ToolChoice.tool("now"))).collect()
    assert [call.name for call in turn.tool_calls] == ["now"]


def test_a_forced_call_that_is_cut_off_is_malformed() -> None:
    turn = LocalModel().chat_stream(asking(ToolChoice.tool("weather"), max_tokens=12)).collect()
    assert turn.reason is FinishReason.MAX_TOKENS
    (call,) = turn.malformed_calls
    assert isinstance(call, ToolCallMalformed)


def test_calls_and_their_results_are_sent_in_the_history() -> None:
    history = [
        Message.user("Is it raining in Oslo?"),
        Message.assistant([ToolCallBlock("c1", "weather", {"city": "Oslo"})]),
        Message.user([ToolResultBlock("c1", "It is.")]),
    ]
    turn = LocalModel().chat_stream(ChatRequest(history, max_tokens=16, tools=[WEATHER], **DETERMINISTIC)).collect()
    assert turn.text


def test_a_forced_call_and_a_format_exclude_each_other() -> None:
    with pytest.raises(UnsupportedContentError, match="at once"):
        LocalModel().chat_stream(asking(ToolChoice.any(), response_format=JsonSchema("city", CITY)))


@pytest.mark.parametrize(
    "roles",
    [["user"], ["system", "user"], ["user", "assistant", "user"], ["user", "system", "user"], ["assistant", "user"]],
)
def test_without_tools_the_prompt_is_that_of_the_models_own_template(roles: list[str]) -> None:
    messages = [{"role": role, "content": f" {role} {n}\n"} for n, role in enumerate(roles)]
    ours, own = serve(weights_path(), CHAT_TEMPLATE), serve(weights_path())
    assert prompt_of(ours, messages) == prompt_of(own, messages)
