"""The streams that the benchmarks read, served by a process of their own.

The client's CPU time is measured, so the server must not run in the client's process.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import NamedTuple, TypeVar
from zlib import crc32

from completion.testing import Pause, ProviderServer, Reply, event
from completion.testing.replies import Piece

PACE_S = 0.0005
"""Between two chunks of the paced stream: each arrives alone, as from a real model."""

T = TypeVar("T")


class Urls(NamedTuple):
    """Where each stream is served."""

    openai: str
    anthropic: str
    responses: str
    cohere: str
    ollama: str
    gemini: str
    interactions: str
    bedrock: str
    paced: str
    """Chat Completions, one chunk every ``PACE_S``."""


def chat_completions(chunks: int) -> list[bytes]:
    """Events as OpenAI sends them today, about 270 bytes each."""
    common = {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion.chunk",
        "created": 1741569952,
        "model": "gpt-5.6",
        "service_tier": "default",
        "system_fingerprint": "fp_44709d6fcb",
    }

    def chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
        return event({**common, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]})

    return [*(chunk({"content": f" word{i % 1000}"}) for i in range(chunks)), chunk({}, "stop"), event("[DONE]")]


def messages(chunks: int) -> list[bytes]:
    """Events as Anthropic sends them, about 130 bytes each."""
    usage = {"input_tokens": 9, "output_tokens": 1}
    message = {"id": "msg_01", "type": "message", "role": "assistant", "model": "claude-sonnet-4-6", "content": []}

    def named(kind: str, **fields: object) -> bytes:
        return event({"type": kind, **fields}, kind)

    def delta(text: str) -> bytes:
        return named("content_block_delta", index=0, delta={"type": "text_delta", "text": text})

    end = {"stop_reason": "end_turn", "stop_sequence": None}
    return [
        named("message_start", message={**message, "stop_reason": None, "stop_sequence": None, "usage": usage}),
        named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *(delta(f" word{i % 1000}") for i in range(chunks)),
        named("content_block_stop", index=0),
        named("message_delta", delta=end, usage={"output_tokens": chunks}),
        named("message_stop"),
    ]


def responses(chunks: int) -> list[bytes]:
    """Events as OpenAI Responses sends them, about 240 bytes each."""
    item = "msg_68f5c2c1f0d88193b6f4b2a9a1c3b2d40e7a1f6a0a6bf9e0"

    def named(kind: str, number: int, **fields: object) -> bytes:
        return event({"type": f"response.{kind}", "sequence_number": number, **fields}, f"response.{kind}")

    def delta(i: int) -> bytes:
        own = {"item_id": item, "output_index": 0, "content_index": 0, "delta": f" word{i % 1000}", "logprobs": []}
        return named("output_text.delta", i + 2, **own, obfuscation="q3vJ0xZb")

    message = {"id": item, "type": "message", "role": "assistant", "content": []}
    usage = {"input_tokens": 9, "output_tokens": chunks}
    return [
        named("created", 0, response={"id": "resp_1", "status": "in_progress", "model": "gpt-5.6", "output": []}),
        named("output_item.added", 1, output_index=0, item=message),
        *map(delta, range(chunks)),
        named("completed", chunks + 2, response={"id": "resp_1", "status": "completed", "output": [], "usage": usage}),
    ]


def cohere(chunks: int) -> list[bytes]:
    """Events as Cohere sends them, about 120 bytes each."""

    def named(kind: str, **fields: object) -> bytes:
        return event({"type": kind, **fields}, kind)

    def part(kind: str, **content: str) -> bytes:
        return named(kind, index=0, delta={"message": {"content": content}})

    tokens = {"input_tokens": 9, "output_tokens": chunks}
    return [
        named("message-start", id="66dec7d7", delta={"message": {"role": "assistant", "content": []}}),
        part("content-start", type="text", text=""),
        *(part("content-delta", text=f" word{i % 1000}") for i in range(chunks)),
        named("content-end", index=0),
        named("message-end", delta={"finish_reason": "COMPLETE", "usage": {"tokens": tokens}}),
    ]


def ollama(chunks: int) -> list[bytes]:
    """Lines as Ollama sends them, about 130 bytes each."""

    def line(content: str, **fields: object) -> bytes:
        message = {"role": "assistant", "content": content}
        data = {"model": "qwen3:8b", "created_at": "2026-11-29T02:25:33.123456789Z", "message": message, **fields}
        return json.dumps(data, separators=(",", ":")).encode() + b"\n"

    words = (line(f" word{i % 1000}", done=False) for i in range(chunks))
    return [*words, line("", done=True, done_reason="stop", prompt_eval_count=9, eval_count=chunks)]


def generate_content(chunks: int) -> list[bytes]:
    """Events as Gemini sends them, about 330 bytes each."""

    def chunk(text: str, **more: object) -> bytes:
        candidate = {"content": {"parts": [{"text": text}], "role": "model"}, **more, "index": 0}
        details = [{"modality": "TEXT", "tokenCount": 9}]
        usage = {"promptTokenCount": 9, "candidatesTokenCount": chunks, "totalTokenCount": chunks + 9}
        common = {"modelVersion": "gemini-3.8-flash", "responseId": "q3vJ0xZbGd6Oz7IP1uG9mQk"}
        return event({"candidates": [candidate], "usageMetadata": {**usage, "promptTokensDetails": details}, **common})

    return [*(chunk(f" word{i % 1000}") for i in range(chunks)), chunk("", finishReason="STOP")]


def interactions(chunks: int) -> list[bytes]:
    """Events as Gemini's Interactions API sends them, about 120 bytes each."""

    def named(kind: str, **fields: object) -> bytes:
        return event({"event_type": kind, **fields, "event_id": "q3vJ0xZb"}, kind)

    def delta(i: int) -> bytes:
        return named("step.delta", index=0, delta={"type": "text", "text": f" word{i % 1000}"})

    common = {"id": "v1_1", "model": "gemini-3.8-flash", "object": "interaction"}
    usage = {"total_input_tokens": 9, "total_output_tokens": chunks, "total_tokens": chunks + 9}
    return [
        named("interaction.created", interaction={**common, "status": "in_progress"}),
        named("step.start", index=0, step={"type": "model_output"}),
        *map(delta, range(chunks)),
        named("step.stop", index=0),
        named("interaction.completed", interaction={**common, "status": "completed", "usage": usage}),
        event("[DONE]", "done"),
    ]


def framed(name: str, data: object) -> bytes:
    """A frame of Amazon's event stream."""
    named = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        struct.pack("B", len(key)) + key.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
        for key, value in named.items()
    )
    payload = json.dumps(data, separators=(",", ":")).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    frame = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return frame + struct.pack(">I", crc32(frame))


def converse(chunks: int) -> list[bytes]:
    """Frames as Bedrock Converse sends them, about 190 bytes each."""

    def delta(text: str) -> bytes:
        return framed("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}, "p": "abcdefghijklmno"})

    return [
        framed("messageStart", {"role": "assistant", "p": "abcdef"}),
        *(delta(f" word{i % 1000}") for i in range(chunks)),
        framed("contentBlockStop", {"contentBlockIndex": 0, "p": "abc"}),
        framed("messageStop", {"stopReason": "end_turn", "p": "abc"}),
        framed("metadata", {"usage": {"inputTokens": 9, "outputTokens": chunks}, "metrics": {"latencyMs": 9}}),
    ]


def paced(pieces: Iterable[bytes]) -> Iterator[Piece]:
    for piece in pieces:
        yield piece
        yield Pause(PACE_S)


def serve(chunks: int, paced_chunks: int) -> None:
    """Serve the streams until stdin closes."""
    replies = {
        "openai": Reply(*chat_completions(chunks), batch=True),
        "anthropic": Reply(*messages(chunks), batch=True),
        "responses": Reply(*responses(chunks), batch=True),
        "cohere": Reply(*cohere(chunks), batch=True),
        "ollama": Reply(*ollama(chunks), batch=True, content_type="application/x-ndjson"),
        "gemini": Reply(*generate_content(chunks), batch=True),
        "interactions": Reply(*interactions(chunks), batch=True),
        "bedrock": Reply(*converse(chunks), batch=True),
        "paced": Reply(*paced(chat_completions(paced_chunks))),
    }
    with ExitStack() as stack:
        servers = {name: stack.enter_context(ProviderServer()) for name in Urls._fields}
        for name, server in servers.items():
            server.always(replies[name])
        print(*(server.url for server in servers.values()), flush=True)
        sys.stdin.read()


def with_server(run: Callable[[Urls], T], chunks: int, paced_chunks: int = 1) -> T:
    command = [sys.executable, __file__, str(chunks), str(paced_chunks)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            return run(Urls(*process.stdout.readline().split()))
        finally:
            process.stdin.close()


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
