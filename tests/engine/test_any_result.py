"""Whatever a tool returns or raises: the model reads it or an error, and the run goes on."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from completion import (
    AudioBlock,
    Base64Source,
    ChatRequest,
    DocumentBlock,
    FileSource,
    ImageBlock,
    LocalModel,
    Message,
    OpenAIModel,
    ProviderBlock,
    ReasoningBlock,
    TextBlock,
    ToolCallBlock,
    ToolChoice,
    ToolError,
    ToolResultBlock,
    UrlSource,
    run_chat,
)
from completion.testing import ProviderServer, Reply, ScriptedModel, event
from tests.engine.test_pauses import claude
from tests.engine.test_pauses import model_of as claude_of
from tests.loopback import END, HI, model_of, text
from tests.runs import called, end_of, named, results_in, texts, turn

PNG = Base64Source(
    "image/png", "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
IMAGES = [ImageBlock(PNG), TextBlock("two"), ImageBlock(PNG)]


@dataclass
class Node:
    next: Any


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class SilentToolError(ToolError):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Hostile:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


def loop_of_lists() -> Any:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def loop_of_objects() -> Any:
    node = Node(None)
    node.next = {"node": node}
    return node


ERRORS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"abc",
    "bytes in a list of blocks": lambda: [TextBlock("a"), b"abc"],
    "a view of bytes": lambda: memoryview(b"abc"),
    "NaN": lambda: math.nan,
    "infinity inside": lambda: {"a": [math.inf]},
    "an exception": lambda: ValueError("x"),
    "a huge int": lambda: 10**5000,
    "a list in itself": loop_of_lists,
    "an object in itself": loop_of_objects,
    "an object": object,
    "a hostile object": Hostile,
    "a class": lambda: Node,
    "a generator": lambda: (number for number in range(3)),
    "a complex number": lambda: 1j,
    "a tool result": lambda: ToolResultBlock("c9", "inner"),
    "a tool call": lambda: ToolCallBlock("c9", "go", {}),
    "a thought": lambda: [TextBlock("a"), ReasoningBlock("hm")],
    "a block that cannot be made": lambda: ImageBlock(Base64Source("image/png", "not base64!")),
}

DATA: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing": (lambda: None, "Done."),
    "an empty text": (lambda: "", "(empty)"),
    "an empty list": (lambda: [], "[]"),
    "a set": (lambda: {2, 1}, "[1, 2]"),
    "a mixed set": (lambda: {"a"} | {1.5}, None),  # type: ignore[dict-item]
    "a dataclass": (lambda: Node(3), '{"next": 3}'),
    "half a character": (lambda: "a\ud83d", "a\ufffd"),
    "half a character in a key": (lambda: {"\ud83d": 1}, '{"\ufffd": 1}'),
    "the halves of a character": (lambda: "\ud83d\ude80", "\U0001f680"),
    "half a character in a block": (lambda: [TextBlock("\udc00"), 5], "\ufffd5"),
}


def raising(error: BaseException) -> Callable[[], Any]:
    def fail() -> None:
        raise error

    return fail


RAISED: dict[str, tuple[BaseException, str]] = {
    "without words": (Silent(), "Silent: (the error has no message)"),
    "a ToolError without words": (SilentToolError(), "(the error has no message)"),
    "half a character": (ValueError("a\ud83d"), "ValueError: a\ufffd"),
    "SystemExit": (SystemExit(1), "SystemExit: 1"),
    "KeyboardInterrupt": (KeyboardInterrupt(), "KeyboardInterrupt: "),
    "StopIteration": (StopIteration(3), "StopIteration: 3"),
    "GeneratorExit": (GeneratorExit(), "GeneratorExit: "),
    "MemoryError": (MemoryError(), "MemoryError: "),
    "an empty ToolError": (ToolError(""), "The call failed."),
}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """The log shows errors as they are, and pytest-xdist cannot send halves of characters from its workers."""
    caplog.set_level(logging.CRITICAL, "completion.engine.calls")


def result_of(function: Callable[[], Any]) -> ToolResultBlock:
    """The result of a call of this tool, in a run that goes on to its second turn."""
    with ScriptedModel(turn(called("go")), turn("ok")) as model:
        end = end_of(run_chat(model, HI, [named("go", function)]))
    assert end.new_messages[-1] == Message.assistant("ok")
    json.loads(end.to_json())
    return results_in(end.new_messages)[0]


@pytest.mark.parametrize("returned", ERRORS.values(), ids=ERRORS.keys())
def test_what_is_not_data_becomes_an_error_for_the_model(returned: Callable[[], Any]) -> None:
    result = result_of(returned)
    assert result.is_error
    assert isinstance(result.blocks[0], TextBlock)
    assert len(result.blocks[0].text) > 20


@pytest.mark.parametrize(("returned", "read"), DATA.values(), ids=DATA.keys())
def test_data_becomes_text(returned: Callable[[], Any], read: str | None) -> None:
    result = result_of(returned)
    assert not result.is_error
    words = "".join(block.text for block in result.blocks if isinstance(block, TextBlock))
    words.encode()
    assert read in (None, words)


@pytest.mark.parametrize(("error", "read"), RAISED.values(), ids=RAISED.keys())
def test_any_exception_becomes_an_error_for_the_model(error: BaseException, read: str) -> None:
    result = result_of(raising(error))
    assert (result.is_error, result.blocks) == (True, (TextBlock(read),))


# On the wires


CALL = event(
    {
        "id": "c1",
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "delta": {
                    "tool_calls": [
                        {"index": 0, "id": "c1", "type": "function", "function": {"name": "go", "arguments": "{}"}}
                    ]
                },
            }
        ],
    }
)
MEDIA: dict[str, Any] = {
    "an image": ImageBlock(PNG),
    "images and text": IMAGES,
    "the URL of an image": ImageBlock(UrlSource("https://example.com/a.png")),
    "an uploaded image": ImageBlock(FileSource("file_1")),
    "an image of a rare type": ImageBlock(Base64Source("image/tiff", "AAAA")),
    "a document": DocumentBlock(Base64Source("application/pdf", "AAAA")),
    "a sound": AudioBlock(Base64Source("audio/wav", "AAAA")),
    "a block of a provider": ProviderBlock("anthropic", {"type": "search_result"}),
    "a block of an unknown provider": ProviderBlock("nowhere", {"type": "x"}),
    "an empty text block": TextBlock(""),
}


@pytest.mark.parametrize("returned", MEDIA.values(), ids=MEDIA.keys())
def test_openai_gets_a_valid_request_for_any_media(server: ProviderServer, returned: Any) -> None:
    server.reply(Reply(CALL, event("[DONE]")))
    server.reply(Reply(text("ok"), END))
    assert run_chat(model_of(server), "Hi", [named("go", lambda: returned)]).collect().text == "ok"
    sent = server.requests[1].json()["messages"][2:]
    assert (sent[0]["role"], sent[0]["tool_call_id"]) == ("tool", "c1")
    assert isinstance(sent[0]["content"], str)


@pytest.mark.parametrize("returned", MEDIA.values(), ids=MEDIA.keys())
def test_anthropic_gets_a_valid_request_for_any_media(server: ProviderServer, returned: Any) -> None:
    server.reply(claude("tool_use", {"type": "tool_use", "id": "c1", "name": "go", "input": {}}))
    server.reply(claude("end_turn", {"type": "text", "text": "ok"}))
    assert run_chat(claude_of(server), "Hi", [named("go", lambda: returned)]).collect().text == "ok"
    (result,) = server.requests[1].json()["messages"][2]["content"]
    assert (result["type"], result["tool_use_id"]) == ("tool_result", "c1")


def test_openai_gets_the_images_behind_the_results(server: ProviderServer) -> None:
    server.reply(Reply(CALL, event("[DONE]")))
    server.reply(Reply(text("ok"), END))
    run_chat(OpenAIModel("m", api_key="k", base_url=server.url), "Hi", [named("go", lambda: IMAGES)]).collect()
    behind = server.requests[1].json()["messages"][3]
    assert behind["role"] == "user"
    assert [part["type"] for part in behind["content"]] == ["text", "image_url", "text", "image_url"]


@pytest.mark.parametrize("returned", MEDIA.values(), ids=MEDIA.keys())
def test_the_embedded_model_goes_on_after_any_media(returned: Any) -> None:
    pytest.importorskip("xllamacpp")
    request = ChatRequest("Call go.", max_tokens=8, temperature=0.0, tool_choice=ToolChoice.tool("go"))
    end = end_of(run_chat(LocalModel(), request, [named("go", lambda: returned)]))
    assert end.abort is None
    assert len(texts(end.new_messages)) >= 1
