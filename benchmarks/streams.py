"""The streams that the benchmarks read, served by a process of their own.

The client's CPU time is measured, so the server must not run in the client's process.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from completion.testing import Pause, ProviderServer, Reply, event
from completion.testing.replies import Piece

PACE_S = 0.0005
"""Between two chunks of the paced stream: each arrives alone, as from a real model."""

T = TypeVar("T")


class Urls(NamedTuple):
    """Where each stream is served."""

    openai: str
    anthropic: str
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


def paced(pieces: Iterable[bytes]) -> Iterator[Piece]:
    for piece in pieces:
        yield piece
        yield Pause(PACE_S)


def serve(chunks: int, paced_chunks: int) -> None:
    """Serve the streams until stdin closes."""
    with ProviderServer() as openai_server, ProviderServer() as anthropic_server, ProviderServer() as paced_server:
        openai_server.always(Reply(*chat_completions(chunks), batch=True))
        anthropic_server.always(Reply(*messages(chunks), batch=True))
        paced_server.always(Reply(*paced(chat_completions(paced_chunks))))
        print(openai_server.url, anthropic_server.url, paced_server.url, flush=True)
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
