"""reasoning_effort: seven words and a budget on every wire."""

from __future__ import annotations

from typing import Any, cast

import pytest

from completion import (
    AnthropicModel,
    ChatRequest,
    ConfigurationError,
    Message,
    OpenAIModel,
    ProviderBlock,
    ToolChoice,
    UnsupportedContentError,
)
from completion.contract.request import EFFORTS, Effort
from completion.wires.anthropic import MESSAGES
from completion.wires.anthropic.dialect import MessagesDialect
from completion.wires.openai_chat import CHAT_COMPLETIONS
from completion.wires.openai_chat.dialect import COMPATIBLE, OPENAI, ChatDialect
from tests.wire_pieces import TOOL


def chat(effort: str | int, model: str, dialect: ChatDialect = OPENAI) -> tuple[Any, bool]:
    """The word that is sent, and whether ``dropped`` says that it is another one."""
    request = ChatRequest("q", reasoning_effort=cast(Effort, effort))
    body, dropped = CHAT_COMPLETIONS.body(request, model, dialect)
    return body["reasoning_effort"], "reasoning_effort" in dropped


def claude(effort: str | int, model: str) -> tuple[Any, Any, bool]:
    request = ChatRequest("q", reasoning_effort=cast(Effort, effort))
    body, dropped = MESSAGES.body(request, model, MessagesDialect())
    return body.get("thinking"), body.get("output_config", {}).get("effort"), "reasoning_effort" in dropped


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("gpt-5", ["minimal", "minimal", "low", "medium", "high", "high", "high"]),
        ("gpt-5.1", ["none", "low", "low", "medium", "high", "high", "high"]),
        ("openai/gpt-5.4-mini", ["none", "low", "low", "medium", "high", "xhigh", "xhigh"]),
        ("gpt-5.6", ["none", "low", "low", "medium", "high", "xhigh", "max"]),
        ("gpt-6", ["none", "low", "low", "medium", "high", "xhigh", "max"]),
        ("o4-mini", ["low", "low", "low", "medium", "high", "high", "high"]),
        ("azure_gpt-5.6", ["none", "low", "low", "medium", "high", "xhigh", "max"]),
        ("us-gpt-5.4", ["none", "low", "low", "medium", "high", "xhigh", "xhigh"]),
        ("openai--gpt-5.4", ["none", "low", "low", "medium", "high", "xhigh", "xhigh"]),
        ("us-o3", ["low", "low", "low", "medium", "high", "high", "high"]),
        ("gpt-5-pro-2025-10-06", ["high"] * 7),
        ("openai/gpt-5.4-pro", ["medium", "medium", "medium", "medium", "high", "xhigh", "xhigh"]),
        ("gpt-5-codex", ["low", "low", "low", "medium", "high", "high", "high"]),
        ("gpt-5.1-codex-max", ["low", "low", "low", "medium", "high", "xhigh", "xhigh"]),
        ("gpt-5.2-chat-latest", ["medium"] * 7),
        ("marco-o1", list(EFFORTS)),
        ("my-deployment", list(EFFORTS)),
    ],
)
def test_openai_models_get_the_nearest_word_that_they_know(model: str, sent: list[str]) -> None:
    for effort, word in zip(EFFORTS, sent, strict=True):
        assert chat(effort, model) == (word, word != effort)


def test_an_unknown_server_gets_the_word_as_it_is_and_an_option_says_otherwise() -> None:
    assert [chat(effort, "qwen", COMPATIBLE)[0] for effort in EFFORTS] == list(EFFORTS)
    assert chat("max", "qwen", ChatDialect(efforts=("low", "high"))) == ("high", True)
    assert chat("medium", "qwen", ChatDialect(efforts=("none", "max"))) == ("max", True)


@pytest.mark.parametrize(("budget", "word"), [(0, "none"), (1, "low"), (2048, "medium"), (8192, "high")])
def test_a_budget_is_a_word_on_chat_completions(budget: int, word: str) -> None:
    assert chat(budget, "gpt-5.6") == (word, False)


def enabled(budget: int) -> dict[str, Any]:
    return {"type": "enabled", "budget_tokens": budget}


ADAPTIVE = {"type": "adaptive"}


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        (
            "claude-sonnet-4-5",
            [
                ({"type": "disabled"}, None, False),
                (enabled(1024), None, True),
                (enabled(1024), None, False),
                (enabled(4096), None, False),
                (enabled(16384), None, False),
                (enabled(24576), None, False),
                (enabled(27904), None, False),
            ],
        ),
        (
            "claude-opus-4-6",
            [
                ({"type": "disabled"}, None, False),
                (None, "low", False),
                (ADAPTIVE, "low", False),
                (ADAPTIVE, "medium", False),
                (ADAPTIVE, "high", False),
                (ADAPTIVE, "high", True),
                (ADAPTIVE, "max", False),
            ],
        ),
        (
            "us.anthropic.claude-sonnet-5-5-v1",
            [
                ({"type": "between_tools"}, None, False),
                (ADAPTIVE, "low", True),
                (ADAPTIVE, "low", False),
                (ADAPTIVE, "medium", False),
                (ADAPTIVE, "high", False),
                (ADAPTIVE, "xhigh", False),
                (ADAPTIVE, "max", False),
            ],
        ),
    ],
)
def test_claude_gets_a_budget_or_an_effort_by_its_version(model: str, sent: list[Any]) -> None:
    assert [claude(effort, model) for effort in EFFORTS] == sent


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-4-7", "claude-sonnet-5-5"])
def test_two_words_never_make_one_body_unless_dropped_says_so(model: str) -> None:
    exact = [claude(effort, model)[:2] for effort in EFFORTS if not claude(effort, model)[2]]
    assert all(exact.count(one) == 1 for one in exact)


def test_a_budget_becomes_an_effort_where_budgets_are_refused() -> None:
    assert claude(5000, "claude-opus-4-6") == (enabled(5000), None, False)
    assert claude(5000, "claude-sonnet-5-5") == (ADAPTIVE, "medium", True)


def test_models_that_always_think_get_the_lowest_effort_for_none() -> None:
    assert claude("none", "claude-fable-5") == (ADAPTIVE, "low", True)
    assert claude("none", "claude-opus-5") == ({"type": "disabled"}, None, False)


# What Claude 5.5 and newer refuse


NEW = "claude-sonnet-5-5"


def test_claude_5_5_drops_sampling() -> None:
    body, dropped = MESSAGES.body(ChatRequest("q", temperature=0.5, top_p=0.9, top_k=3), NEW, MessagesDialect())
    assert dropped == ["temperature", "top_p", "top_k"]
    assert not body.keys() & {"temperature", "top_p", "top_k"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tools": [TOOL], "tool_choice": {"kind": "any"}}, "tool_choice.*claude-sonnet-5-5 always thinks"),
        ({"additional_params": {"thinking": {"type": "disabled"}}}, "thinking.*use reasoning_effort"),
        ({"additional_params": {"thinking": enabled(2000)}}, "thinking.*use reasoning_effort"),
        ({"additional_params": {"temperature": 1}}, "temperature.*claude-sonnet-5-5 does not support"),
        ({"prefill": True}, "messages.*does not continue an answer"),
    ],
)
def test_claude_5_5_refuses_before_sending(fields: dict[str, Any], words: str) -> None:
    messages = [Message.user("q"), Message.assistant("It is")] if fields.pop("prefill", False) else "q"
    if "tool_choice" in fields:
        fields = {**fields, "tool_choice": ToolChoice.any()}
    request = ChatRequest(messages, **fields)
    with pytest.raises(UnsupportedContentError, match=words):
        MESSAGES.body(request, NEW, MessagesDialect())
    MESSAGES.body(request, "claude-sonnet-4-5", MessagesDialect())


def test_options_say_what_the_model_id_does_not() -> None:
    model = AnthropicModel("my-alias", api_key="key-of-mine", model_version="5.5")
    assert model.lowered(ChatRequest("q", reasoning_effort="none"))[0]["thinking"] == {"type": "between_tools"}
    openai = OpenAIModel("my-alias", api_key="key-of-mine", efforts=["low", "high"])
    assert openai.lowered(ChatRequest("q", reasoning_effort="max"))[0]["reasoning_effort"] == "high"
    with pytest.raises(ConfigurationError, match=r"model_version must be like '4.6', got 'new'"):
        AnthropicModel("m", api_key="key-of-mine", model_version="new")
    with pytest.raises(ConfigurationError, match=r"efforts must be some of .*got \['much'\]"):
        OpenAIModel("m", api_key="key-of-mine", efforts=["much"])


def test_claude_5_5_continues_a_paused_answer_only() -> None:
    def history(*own: dict[str, Any]) -> ChatRequest:
        blocks = [ProviderBlock("anthropic", block) for block in own]
        return ChatRequest([Message.user("q"), Message.assistant([*blocks, "Found:"])])

    call = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    MESSAGES.body(history(call), NEW, MessagesDialect())
    with pytest.raises(UnsupportedContentError, match="does not continue an answer"):
        MESSAGES.body(
            history(call, {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}), NEW, MessagesDialect()
        )
