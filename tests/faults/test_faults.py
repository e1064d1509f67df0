"""The fault matrix on every wire: the right answer, or the right typed error within its time limit."""

from __future__ import annotations

import time
from typing import Any, Final

import pytest

from completion import CompletionError, DeadlineExceededError, IdleTimeoutError, Timeout, Transient
from completion.testing import ProviderServer
from completion.transport import body as transport_body
from completion.wires import assembly
from tests.adapters.test_adapters import ADAPTERS, Adapter
from tests.documents import ROOT
from tests.faults.places import served
from tests.faults.table import FAULTS, LIMIT_S, Fault, Wire
from tests.loopback import HI, PATIENCE_S
from tests.wire_pieces import IS_SAMPLED

FAR_TOO_LONG_S: Final = 5.0
SHORT_LIMITS: Final = (Timeout(read=LIMIT_S), Timeout(stall=LIMIT_S), Timeout(total=LIMIT_S))

# The others send the same bytes to another URL.
OF_EACH_WIRE: Final = {
    name: adapter
    for name, adapter in ADAPTERS.items()
    if not name.startswith("azure") and name not in ("anthropic-foundry", "anthropic-mantle")
}


def wire_of(adapter: Adapter) -> Wire:
    events: Any = "lines" if adapter.begun.startswith(b"{") else "sse" if b"data: " in adapter.begun else "frames"
    return Wire(events, adapter.begun, adapter.ended)


CELLS: Final = [
    pytest.param(adapter, fault, id=f"{name}: {fault.name}")
    for name, adapter in (OF_EACH_WIRE if IS_SAMPLED else ADAPTERS).items()
    for fault in FAULTS
    if wire_of(adapter).events in fault.events
]


def outcome_of(model: Any) -> str | CompletionError:
    """The text of the answer, or the error."""
    try:
        turn = model.chat_stream(HI).collect()
    except CompletionError as error:
        return error
    assert turn.reason == "end_turn"
    return str(turn.text)


def is_right(outcome: str | CompletionError, fault: Fault) -> bool:
    return outcome == fault.answer if isinstance(outcome, str) else type(outcome) in fault.errors


def next_outcome(model: Any, server: ProviderServer, adapter: Adapter, fault: Fault) -> str | CompletionError:
    """The outcome of the next request. On a busy machine a right answer may take longer than a short limit."""
    attempts = 10 if fault.limit in SHORT_LIMITS else 1
    for _ in range(attempts):
        server.reply(adapter.turn)
        outcome = outcome_of(model)
        if not isinstance(outcome, IdleTimeoutError | DeadlineExceededError):
            break
    return outcome


def wait_until_closed(server: ProviderServer) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while server.open_connections and time.monotonic() < deadline:
        time.sleep(0.001)
    assert server.open_connections == 0


@pytest.mark.parametrize(("adapter", "fault"), CELLS)
def test_each_fault_has_its_right_outcome(monkeypatch: pytest.MonkeyPatch, adapter: Adapter, fault: Fault) -> None:
    monkeypatch.setattr(transport_body, "_ERROR_BODY_SECONDS", 0.1)
    monkeypatch.setattr(transport_body, "_DRAIN_SECONDS", 0.1)
    monkeypatch.setattr(assembly, "WAIT_FOR_EOF_S", 0.1)
    options = {} if fault.max_event_bytes is None else {"max_event_bytes": fault.max_event_bytes}
    with served(fault.place) as (server, url):
        model = adapter.model(url, timeout=fault.limit, **options)
        for reply in fault.replies(wire_of(adapter)):
            server.reply(reply)
            began = time.monotonic()
            outcome = outcome_of(model)
            assert is_right(outcome, fault), repr(outcome)
            assert time.monotonic() - began < FAR_TOO_LONG_S
            if isinstance(outcome, CompletionError):
                assert (outcome.provider, outcome.model) == (adapter.family, "m")
                if fault.may_retry is not None:
                    assert isinstance(outcome.retry_classification(), Transient) is fault.may_retry
        if fault.place == "server":  # a broken connection must not spoil the next request
            assert next_outcome(model, server, adapter, fault) == "a"
        model.close()
        wait_until_closed(server)


def test_the_documentation_shows_each_fault() -> None:
    page = (ROOT / "docs" / "howitbehaves.rst").read_text(encoding="utf-8")
    assert [fault.name for fault in FAULTS if f"\n{fault.name} " not in page] == []
