"""Invented answers of a provider, read by each wire: a fuzzer guided by coverage, started by hand.

    pip install atheris
    python -m tests.fuzz openai-chat -max_total_time=300

An answer that breaks a promise ends the run, and is saved by the fuzzer as ``crash-…``. Give that file as the last
argument to read it again. The wires are the keys of ``WIRES``. `test_fuzz` reads a few hundred such answers without the
fuzzer.
"""

from __future__ import annotations

import copy
import functools
import json
import random
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from completion import ChatRequest, CompletionError, Message, StreamChunk, Turn, collect
from completion.events import MAX_EVENT_BYTES
from completion.testing.conformance.answers import KNOWN_WIRES
from completion.wires.anthropic import MESSAGES
from completion.wires.bedrock_converse import CONVERSE
from completion.wires.cohere import COHERE_CHAT
from completion.wires.gemini import GENERATE_CONTENT
from completion.wires.gemini_interactions import INTERACTIONS
from completion.wires.ollama import OLLAMA_CHAT
from completion.wires.openai_chat import CHAT_COMPLETIONS
from completion.wires.openai_responses import RESPONSES
from completion.wires.wire import Wire
from tests import aws
from tests.wire_pieces import ignore_end, order_faults

WIRES = {
    wire.name: wire
    for wire in (
        *(CHAT_COMPLETIONS, MESSAGES, RESPONSES, GENERATE_CONTENT, INTERACTIONS, CONVERSE),
        *(OLLAMA_CHAT, COHERE_CHAT),
    )
}

_MADE_UP_ID = re.compile(r"call_[0-9a-f]{16,}")
_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    7,
    2**70,
    1e400,
    "",
    "x",
    "é\ud800",
    "{",
    "[DONE]",
    [],
    [None],
    {},
    {"a": 1},
)
"""Values that take the place of others in an answer."""


def seed_of(name: str) -> list[Any]:
    """A good answer of a wire with text, thoughts and a call, as events: ``(event name, JSON value)``."""
    if name == CONVERSE.name:
        started = ("contentBlockStart", {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "t", "name": "f"}}})
        return [
            ("messageStart", {"role": "assistant"}),
            ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "Hm"}}}),
            ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": "s"}}}),
            ("contentBlockStop", {"contentBlockIndex": 0}),
            started,
            ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"toolUse": {"input": '{"a": 1}'}}}),
            ("contentBlockStop", {"contentBlockIndex": 1}),
            ("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"text": "Hello"}}),
            ("contentBlockStop", {"contentBlockIndex": 2}),
            ("messageStop", {"stopReason": "tool_use"}),
            ("metadata", {"usage": {"inputTokens": 3, "outputTokens": 1, "totalTokens": 4}}),
        ]
    return _events_in(WIRES[name], b"".join(KNOWN_WIRES[name]("Hello").events))


def body_of(name: str, events: list[Any]) -> bytes:
    """The body of a response with these events."""
    if name == CONVERSE.name:
        return b"".join(aws.frame(str(kind), value) for kind, value in events)
    lines = [(kind, json.dumps(value).encode()) for kind, value in events]
    if name == OLLAMA_CHAT.name:
        return b"".join(line + b"\n" for _, line in lines)
    return b"".join(b"event: " + kind.encode() + b"\ndata: " + line + b"\n\n" for kind, line in lines)


def changed(events: list[Any], chance: random.Random) -> list[Any]:
    """The events with a few changes: other values, missing keys, events that are repeated, moved or missing."""
    events = copy.deepcopy(events)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(events)) if events else 0
        match chance.randrange(6):
            case 0:
                events[at:at] = copy.deepcopy(events[at : at + chance.randint(1, 3)])
            case 1:
                del events[at : at + 1]
            case 2 if events:
                events.insert(chance.randrange(len(events)), events.pop(at))
            case _ if events:
                kind, value = events[at]
                events[at] = (kind, _changed_value(value, events, chance))
    return events


def _changed_value(value: Any, events: list[Any], chance: random.Random) -> Any:
    places = list(_places(value))
    if not places:
        return chance.choice(_VALUES)
    holder, key = chance.choice(places)
    match chance.randrange(4):
        case 0:
            del holder[key]
        case 1:
            other = chance.choice([place for _, found in events for place in _places(found)] or [(holder, key)])
            holder[key] = copy.deepcopy(other[0][other[1]])
        case 2 if isinstance(holder[key], str):
            text, at = holder[key], chance.randint(0, len(holder[key]))
            holder[key] = text[:at] + chance.choice(["", '"', "}", "{", "\\", "é", "\ud800", "\u2028", " "]) + text[at:]
        case _:
            holder[key] = copy.deepcopy(chance.choice(_VALUES))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where a JSON value contains another one: the object or list, and the key or index."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _is_json(value: Any) -> bool:
    return isinstance(value, dict | list)


def check(wire: Wire, body: bytes, size: int) -> None:
    """Raise AssertionError if the wire breaks a promise with this body, read whole and in pieces of ``size`` bytes."""
    whole, error = _read(wire, [body])
    pieces, error_of_pieces = _read(wire, [body[at : at + size] for at in range(0, len(body), size)])
    assert list(order_faults(whole, ended=error is None)) == []
    assert _joined(whole) == _joined(pieces)
    assert type(error) is type(error_of_pieces), (error, error_of_pieces)
    if error is None:
        _check_turn(collect(whole))


def _read(wire: Wire, pieces: list[bytes]) -> tuple[list[StreamChunk], CompletionError | None]:
    chunks: list[StreamChunk] = []
    try:
        for chunk in wire.chunks(wire.events(iter(pieces), MAX_EVENT_BYTES), ignore_end):
            chunks.append(chunk)  # noqa: PERF402  the chunks before an error count
    except CompletionError as error:
        return chunks, error
    return chunks, None


def _joined(chunks: list[StreamChunk]) -> list[str]:
    """The chunks as text, with the call ids that we make up replaced."""
    return [_MADE_UP_ID.sub("call_made_up", repr(chunk)) for chunk in chunks]


def _check_turn(turn: Turn) -> None:
    """The turn can be stored, and the next request can be made with it, on its own wire and on each other one."""
    assert repr(Turn.from_json(turn.to_json())) == repr(turn)
    results = [Message.tool_result(call.call_id, "done") for call in turn.tool_calls]
    history = [Message.user("Hi"), turn.message, *results, Message.user("And then?")]
    for wire in WIRES.values():
        made, _ = wire.body(ChatRequest(history), "some-model", *_dialect(wire))
        json.dumps(made, allow_nan=False, ensure_ascii=False).encode()


@functools.cache
def _dialect(wire: Wire) -> tuple[Any, ...]:
    from completion.wires.anthropic.dialect import DEFAULT as MESSAGES_DEFAULT
    from completion.wires.bedrock_converse.dialect import DEFAULT as CONVERSE_DEFAULT
    from completion.wires.openai_chat.dialect import OPENAI
    from completion.wires.openai_responses.dialect import DEFAULT as RESPONSES_DEFAULT

    defaults = {MESSAGES.name: MESSAGES_DEFAULT, CONVERSE.name: CONVERSE_DEFAULT, RESPONSES.name: RESPONSES_DEFAULT}
    return ({CHAT_COMPLETIONS.name: OPENAI, **defaults}.get(wire.name),)


def _events_in(wire: Wire, body: bytes) -> list[Any]:
    """The events of a body, as far as it can be read."""
    events: list[Any] = []
    try:
        for kind, value in wire.events(iter([body]), MAX_EVENT_BYTES):
            if _is_json(value):
                events.append((kind, value))
    except CompletionError:
        pass
    return events


def main(arguments: list[str]) -> None:
    """Run the fuzzer: the name of a wire, then the arguments of libFuzzer."""
    atheris: Any = import_module("atheris")
    if not arguments or arguments[0] not in WIRES:
        sys.exit(f"usage: python -m tests.fuzz WIRE [libFuzzer arguments], with a wire of: {', '.join(WIRES)}")
    wire = WIRES[arguments[0]]
    atheris.instrument_all()

    def read(data: bytes) -> None:
        check(wire, data[1:], data[0] + 1 if data else 1)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        events = _events_in(wire, data[1:]) or seed_of(wire.name)
        if chance.random() < 0.2:
            return bytes(atheris.Mutate(data, max_size))
        return (bytes([chance.randrange(256)]) + body_of(wire.name, changed(events, chance)))[:max_size]

    atheris.Setup([sys.argv[0], "-max_len=20000", *arguments[1:]], read, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
