"""What completion and the SDKs of two providers do with each fault of ``tests/faults/table.py``.

    pip install ".[bench]" && python -m benchmarks.faults

A loopback server plays the faults. No client retries, each has the same read timeout, and each is read as its own
documentation shows. A fault may have several replies; the table shows the worst outcome. ``--rst`` prints the table for
``docs/howitbehaves.rst``.
"""

from __future__ import annotations

import argparse
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from typing import Any, Final

import anthropic
import openai

from completion import AnthropicModel, CompletionError, OpenAIModel
from completion.testing import event
from tests.faults.places import served
from tests.faults.table import FAULTS, Fault, Wire

HANG_S: Final = 8.0
"""A client that still waits after so many seconds hangs. The longest limit of completion is 5 s: an error body."""

ORDER: Final = ("right", "answer refused", "typed error", "untyped error", "WRONG", "hangs")
"""The outcomes, the best first."""


def chat(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    facts = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return event({**facts, "choices": [choice]})


def message(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, **fields}, kind)


STARTED: Final = {
    **{"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []},
    **{"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1}},
}
CHAT: Final = Wire("sse", chat({"content": "a"}), chat({}, "stop") + event("[DONE]"))
MESSAGES: Final = Wire(
    "sse",
    message("message_start", message=STARTED)
    + message("content_block_start", index=0, content_block={"type": "text", "text": ""})
    + message("content_block_delta", index=0, delta={"type": "text_delta", "text": "a"}),
    message("content_block_stop", index=0)
    + message("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 1})
    + message("message_stop"),
)


@dataclass(frozen=True)
class Client:
    """A client: how it reads the text of an answer, and the base class of its errors."""

    name: str
    wire: Wire
    read: Callable[[str, Fault], str]
    error: type[Exception]
    is_ours: bool = False


def ours(model_class: Any) -> Callable[[str, Fault], str]:
    def read(url: str, fault: Fault) -> str:
        options = {} if fault.max_event_bytes is None else {"max_event_bytes": fault.max_event_bytes}
        model = model_class("m", api_key="k", base_url=url, timeout=fault.limit, **options)
        try:
            return str(model.chat_stream("Hi").collect().text)
        finally:
            model.close()

    return read


def of_openai(url: str, fault: Fault) -> str:
    with openai.OpenAI(api_key="k", base_url=url, timeout=fault.limit.read, max_retries=0) as client:
        chunks = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}], stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def of_anthropic(url: str, fault: Fault) -> str:
    client = anthropic.Anthropic(api_key="k", base_url=url, timeout=fault.limit.read, max_retries=0)
    asked: Any = [{"role": "user", "content": "Hi"}]
    with client, client.messages.stream(model="m", max_tokens=9, messages=asked) as stream:
        return "".join(stream.text_stream)


CLIENTS: Final = (
    Client("completion, Chat Completions", CHAT, ours(OpenAIModel), CompletionError, True),
    Client("openai", CHAT, of_openai, openai.OpenAIError),
    Client("completion, Messages", MESSAGES, ours(AnthropicModel), CompletionError, True),
    Client("anthropic", MESSAGES, of_anthropic, anthropic.AnthropicError),
)


def read(client: Client, fault: Fault, url: str) -> str:
    """The outcome of one reply: one of ORDER."""
    found: list[str] = []

    def run() -> None:
        try:
            text = client.read(url, fault)
        except client.error as error:
            if client.is_ours and type(error) not in fault.errors:
                found.append("untyped error")
            else:
                found.append("answer refused" if fault.answer == "a" and not fault.errors else "typed error")
        except BaseException:  # an AssertionError of an SDK too
            found.append("untyped error")
        else:
            # A large event is a right answer for a client without a limit.
            is_large = fault.max_event_bytes is not None and len(text) > fault.max_event_bytes
            found.append("right" if text == fault.answer or is_large else "WRONG")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(HANG_S)
    return found[0] if found else "hangs"


def outcome(client: Client, fault: Fault) -> str:
    """The worst outcome of the replies of the fault."""
    found = []
    with served(fault.place) as (server, url):
        for reply in fault.replies(client.wire):
            server.reply(reply)
            found.append(read(client, fault, url))
            if found[-1] == "hangs":
                break
    return max(found, key=ORDER.index)


def expected(fault: Fault) -> str:
    if fault.answer is None:
        return "an error"
    return "the answer or an error" if fault.errors else "the answer"


def main() -> None:
    parser = argparse.ArgumentParser(description="Faults, beside the SDKs of two providers.")
    parser.add_argument("--rst", action="store_true", help="print the table for the documentation")
    as_rst = parser.parse_args().rst
    warnings.simplefilter("ignore")
    faults = [fault for fault in FAULTS if "sse" in fault.events]
    widths = [max(len(fault.name) for fault in faults), len("the answer or an error"), *[14] * len(CLIENTS)]
    heads = ["Fault", "right is", "ours, Chat", "openai", "ours, Messages", "anthropic"]
    line = "  ".join("=" * width for width in widths)
    rows = [line, in_columns(heads, widths), line]
    counts = {client.name: dict.fromkeys(ORDER, 0) for client in CLIENTS}
    for fault in faults:
        cells = [outcome(client, fault) for client in CLIENTS]
        for client, cell in zip(CLIENTS, cells, strict=True):
            counts[client.name][cell] += 1
        rows.append(in_columns([fault.name, expected(fault), *cells], widths))
        if not as_rst:
            print(rows[-1], flush=True)
    if as_rst:
        print("\n".join([*rows, line]))
    print()
    for name, of_name in counts.items():
        print(f"{name}: " + ", ".join(f"{count} {what}" for what, count in of_name.items() if count))
    print(f"{date.today()}; openai {version('openai')}, anthropic {version('anthropic')}, {sys.version.split()[0]}")


def in_columns(cells: list[str], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


if __name__ == "__main__":
    main()
