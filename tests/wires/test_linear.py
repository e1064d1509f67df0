"""Work and memory grow linearly with what a server sends, and JSON that is nested too deeply is an error.

The tests count work where they can: the characters that are parsed. Where they measure time, four times as much input
may take up to twelve times as long.
"""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from completion import (
    ChatRequest,
    DeadlineExceededError,
    FinishReason,
    IdleTimeoutError,
    MalformedStreamError,
    Message,
    ProviderBlock,
    ProviderBlockFinished,
    StreamCancelledError,
    StreamChunk,
    Timeout,
    ToolCallBlock,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    ToolDefinition,
    ToolResultBlock,
    TurnFinished,
    run_chat,
)
from completion.engine import Tool
from completion.events.sse import sse_events
from completion.testing import ProviderServer, Reply, ScriptedModel
from completion.transport import Transport
from completion.transport.body import READ_SIZE
from completion.transport.credentials import ApiKey
from completion.wires.anthropic.assemble import assemble as assemble_anthropic
from completion.wires.anthropic.lower import lower as lower_anthropic
from completion.wires.json_values import MAX_DEPTH
from completion.wires.lowering import merged
from completion.wires.openai_chat.assemble import assemble as assemble_openai
from completion.wires.openai_chat.lower import lower as lower_openai
from completion.wires.tool_call import COMPLETE, ToolCall
from completion.wires.turn_order import TurnOrder
from tests.loopback import HI, KEY, PATIENCE_S, Caught, model_at
from tests.wire_pieces import (
    MESSAGE_STOP,
    STOP,
    TOOLS,
    block_delta,
    block_start,
    block_stop,
    calls,
    delta,
    events,
    message_delta,
    piece,
    texts_parsed,
)


def characters_parsed(work: Callable[[], object]) -> int:
    """How many characters of arguments are parsed while the work is done."""
    return sum(map(len, texts_parsed(work)))


def times_as_long(work: Callable[[int], object], size: int) -> float:
    """By which factor the time grows if the size grows by four: the best of three tries, as the machine may be busy."""

    def seconds(size: int) -> float:
        began = time.perf_counter()
        work(size)
        return time.perf_counter() - began

    return min(seconds(4 * size) / seconds(size) for _ in range(3))


# The arguments of tool calls

SHAPES = [set(), {"index"}, {"id"}, {"index", "id"}, {"name"}, {"index", "name"}, {"index", "id", "name"}]
BIG = json.dumps({"a": "x" * 100_000})


def call_in_pieces(shape: set[str], first: str, then: str, count: int) -> list[dict[str, Any]]:
    """The chunks of a call. Each piece after the first has only the keys of the shape."""
    known = {name: value for name, value in (("id", "c"), ("name", "f")) if name in shape}
    more = piece(0 if "index" in shape else None, then, **known)
    return [calls(piece(0, first, id="c", name="f")), *[calls(more)] * count, TOOLS]


@pytest.mark.parametrize(
    ("first", "then"),
    [('{"a":1}', '{"a":1}'), ('{"a":1}', '{"a":2}'), ("{}", "{}"), (BIG, '{"a":1}'), ('[{"a":1}', ',{"a":1}')],
    ids=["the same", "another", "empty", "small ones after a big one", "in a list"],
)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "+".join(sorted(shape)) or "nothing")
def test_pieces_that_each_look_complete_are_not_parsed_repeatedly(shape: set[str], first: str, then: str) -> None:
    wire = call_in_pieces(shape, first, then, 2000)
    sent = len(first) + 2000 * len(then)
    assert characters_parsed(lambda: list(assemble_openai(events(*wire)))) <= 4 * sent


@pytest.mark.parametrize("then", ['{"a":1}', "{}", '[{"a":1}', '"}{}'])
def test_pieces_that_each_look_complete_are_not_parsed_repeatedly_for_anthropic(then: str) -> None:
    begin = block_start(0, "tool_use", id="c", name="f")
    more = block_delta(0, "input_json_delta", partial_json=then)
    wire = [begin, *[more] * 2000, message_delta("tool_use")]
    assert characters_parsed(lambda: list(assemble_anthropic(events(*wire)))) <= 4 * 2000 * len(then)


def test_changing_the_args_of_a_chunk_does_not_change_the_call() -> None:
    order, call = TurnOrder(), ToolCall("c", "f")
    call.add('{"a":1}')
    assert call.state is COMPLETE
    order.call(call)
    (*_, finished) = order.end()
    assert isinstance(finished, ToolCallFinished)
    finished.args["a"] = 2
    assert call.arguments.is_repeated_by('{"a": 1}')
    assert not call.arguments.is_repeated_by('{"a": 2}')


def test_the_parts_of_a_compaction_are_not_copied_with_each_delta() -> None:
    def read(count: int) -> None:
        deltas = (block_delta(0, "compaction_delta", **{f"key{n}": "x"}) for n in range(count))
        for _ in assemble_anthropic(events(*deltas, MESSAGE_STOP)):
            pass

    assert times_as_long(read, 2000) < 12


# Depth


def nested(depth: int, kind: str = "objects") -> Any:
    """A value in so many objects, or in objects and lists by turns. The outermost one is an object."""
    value: Any = 1
    for level in range(depth):
        is_object = kind == "objects" or level == depth - 1 or level % 2 == 0
        value = {"a": value} if is_object else [value]
    return value


def end_of_call(raw: str) -> StreamChunk:
    """The last chunk of a call with these arguments."""
    return list(assemble_openai(events(calls(piece(0, raw, id="c", name="f")), TOOLS)))[-2]


@pytest.mark.parametrize("kind", ["objects", "both"])
def test_arguments_at_the_limit_of_depth_are_finished(kind: str) -> None:
    args = nested(MAX_DEPTH, kind)
    assert end_of_call(json.dumps(args)) == ToolCallFinished("c", "f", args)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 500, 900, 100_000])
@pytest.mark.parametrize("kind", ["objects", "both"])
def test_arguments_that_are_nested_too_deeply_are_malformed_and_kept_raw(depth: int, kind: str) -> None:
    raw = '{"a":' * depth + "1" + "}" * depth if kind == "objects" else '{"a":[' * depth + "1" + "]}" * depth
    found = end_of_call(raw)
    assert isinstance(found, ToolCallMalformed)
    assert found.raw == raw
    assert "nested too deeply: 100 levels" in found.error


def test_brackets_in_strings_do_not_count_as_depth() -> None:
    args = {"a": "[{" * 1000}
    assert end_of_call(json.dumps(args)) == ToolCallFinished("c", "f", args)


STEPS: dict[str, Callable[[ChatRequest, dict[str, Any]], object]] = {
    "JSON": lambda request, args: ChatRequest.from_json(request.to_json(indent=1)),
    "deepcopy": lambda request, args: copy.deepcopy(request),
    "pickle": lambda request, args: pickle.loads(pickle.dumps(request)),
    "repr": lambda request, args: repr(request),
    "Markdown": lambda request, args: request.messages[0]._repr_markdown_(),
    "merge patch": lambda request, args: merged(args, args),
    "Chat Completions": lambda request, args: json.dumps(lower_openai(request, "m")),
    "Messages": lambda request, args: json.dumps(lower_anthropic(request, "m")),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_arguments_at_the_limit_of_depth_can_be_processed_deep_in_the_stack(
    step: Callable[[ChatRequest, dict[str, Any]], object],
) -> None:
    args = nested(MAX_DEPTH)
    request = ChatRequest([Message("assistant", [ToolCallBlock("c", "f", args)]), Message.tool_result("c", "ok")])

    def under(frames: int) -> object:
        return under(frames - 1) if frames else step(request, args)

    under(400)


@pytest.mark.parametrize("number", ["9" * 4301, "-" + "9" * 5000])
def test_a_number_that_python_cannot_read_makes_the_call_malformed(number: str) -> None:
    assert isinstance(end_of_call(f'{{"a":{number}}}'), ToolCallMalformed)


def test_the_longest_number_that_can_be_parsed_can_be_written() -> None:
    found = end_of_call('{"a":-' + "9" * 4300 + "}")
    assert isinstance(found, ToolCallFinished)
    assert ToolCallFinished.from_json(found.to_json()) == found


def blocks(assemble: Any, wire: list[dict[str, Any]]) -> list[ProviderBlockFinished]:
    return [chunk for chunk in assemble(events(*wire)) if isinstance(chunk, ProviderBlockFinished)]


def messages_block(**fields: Any) -> list[dict[str, Any]]:
    return [block_start(0, "server_tool_use", **fields), block_stop(0), MESSAGE_STOP]


BLOCKS: dict[str, tuple[Any, Callable[[Any], list[dict[str, Any]]]]] = {
    "Chat Completions": (assemble_openai, lambda value: [delta(executed_tools=[{"a": value}]), STOP]),
    "sources": (assemble_openai, lambda value: [{**STOP, "citations": [{"a": value}]}]),
    "content": (assemble_openai, lambda value: [delta(content=[{"type": "reference", "a": value}]), STOP]),
    "Messages": (assemble_anthropic, lambda value: messages_block(a=value)),
}


@pytest.mark.parametrize(("assemble", "wire"), BLOCKS.values(), ids=BLOCKS.keys())
def test_a_provider_block_that_is_nested_too_deeply_is_a_malformed_stream(
    assemble: Any, wire: Callable[[Any], list[dict[str, Any]]]
) -> None:
    assert blocks(assemble, wire(nested(MAX_DEPTH - 5)))
    with pytest.raises(MalformedStreamError, match="nested too deeply: 100 levels are allowed"):
        blocks(assemble, wire(nested(MAX_DEPTH)))


@pytest.mark.parametrize(("assemble", "wire"), BLOCKS.values(), ids=BLOCKS.keys())
def test_nan_in_a_provider_block_becomes_null(assemble: Any, wire: Callable[[Any], list[dict[str, Any]]]) -> None:
    (block,) = blocks(assemble, wire([float("nan"), float("inf"), 1.5]))
    assert "[null, null, 1.5]" in block.to_json()


def test_the_input_of_a_server_side_tool_that_is_nested_too_deeply_is_kept_as_text() -> None:
    begin, *end = messages_block(id="s")
    for depth in (MAX_DEPTH, MAX_DEPTH + 1, 500):
        raw = json.dumps(nested(depth))
        part = block_delta(0, "input_json_delta", partial_json=raw)
        assert blocks(assemble_anthropic, [begin, part, *end])[0].data["input"] == raw


def test_counters_of_thousands_of_digits_are_ignored() -> None:
    usage = {"prompt_tokens": 10**4299, "completion_tokens": 10**3999}
    *_, end = assemble_openai(events({**STOP, "usage": usage}))
    assert json.loads(end.to_json())["usage"]["input_tokens"] == 0


def contains_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


RESULTS: dict[str, tuple[Callable[[], Any], str]] = {
    "nested too deeply": (lambda: nested(100_000), "is nested too deeply, or contains itself"),
    "contains itself": (contains_itself, "is nested too deeply, or contains itself"),
    "a number that is too long": (lambda: 10**5000, "is not JSON: Exceeds the limit"),
    "a block that is nested too deeply": (lambda: ProviderBlock("p", nested(2000)), "100 levels"),
}


@pytest.mark.parametrize(("result", "words"), RESULTS.values(), ids=RESULTS.keys())
def test_a_result_that_a_history_cannot_contain_is_an_error_for_the_model(
    result: Callable[[], Any], words: str
) -> None:
    asks = [ToolCallStarted("c", "f"), ToolCallFinished("c", "f", {}), TurnFinished(FinishReason.TOOL_USE)]
    tool = Tool(ToolDefinition("f", "F.", {"type": "object"}), result)
    end = run_chat(ScriptedModel(asks, "Well."), HI, [tool]).collect()
    (answer,) = end.new_messages[1].blocks
    assert isinstance(answer, ToolResultBlock)
    assert answer.is_error
    assert words in answer.to_json()


# Bytes


def test_cancel_ends_a_compressed_body_that_does_not_end(server: ProviderServer) -> None:
    packer = zlib.compressobj(wbits=31)
    flood = b"".join([*(packer.compress(b": ping\n\n" * 100_000) for _ in range(20)), packer.flush()])
    server.reply(Reply(flood, headers={"Content-Encoding": "gzip"}))
    transport = Transport(provider="p", timeout=Timeout(), headers={}, session=None, request_id_headers=())
    body = transport.post(server.url, {}, ApiKey(KEY, "P_KEY").authorization("p"), model="m")
    with body:
        pieces = body.pieces()
        assert len(next(pieces)) <= READ_SIZE
        body.token.cancel()
        with pytest.raises(StreamCancelledError):
            next(pieces)


@contextmanager
def flooding(unit: bytes) -> Iterator[str]:
    """The URL of a server that answers one request with the same bytes until the client hangs up."""

    def serve() -> None:
        with listener.accept()[0] as connection, suppress(OSError):
            connection.recv(64 * 1024)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
            while True:
                connection.sendall(unit * 4096)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = Caught(serve)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        serving.within(PATIENCE_S)


@pytest.mark.parametrize("unit", [b"\n", b": ping\n\n", b"data:\n\n", b"data:{}\n\n"], ids=repr)
@pytest.mark.parametrize("clock", ["stall", "total"])
def test_the_clocks_end_a_stream_that_sends_no_chunks(clock: str, unit: bytes) -> None:
    with flooding(unit) as url:
        model = model_at(url, timeout=Timeout(**{clock: 0.2}))
        error = Caught(lambda: model.chat_stream(HI).collect()).within(PATIENCE_S).error
    assert type(error) is (IdleTimeoutError if clock == "stall" else DeadlineExceededError)


@pytest.mark.parametrize("unit", [b"\n", b"data:{}\n\n"], ids=repr)
def test_cancel_ends_a_stream_that_sends_no_chunks(unit: bytes) -> None:
    with flooding(unit) as url:
        stream = model_at(url).chat_stream(HI)
        reading = Caught(stream.collect)
        stream.cancel()
        assert type(reading.within(PATIENCE_S).error) is StreamCancelledError


def test_a_line_in_tiny_pieces_is_joined_in_linear_time() -> None:
    def read(size: int) -> None:
        pieces = itertools.chain([b'data: "'], itertools.repeat(b"0123456789", size), [b'"\n\n'])
        assert len(list(sse_events(pieces))) == 1

    assert times_as_long(read, 20_000) < 12
