"""Checks that a model keeps the contract: for the tests of an adapter, with any test framework.

    def test_it_keeps_the_contract():
        check_completion_model(lambda: MyModel(...))                             # a model that needs no server

    def test_it_keeps_the_contract_on_the_wire():
        check_completion_model(lambda base_url, api_key: MyModel("m", base_url, api_key), answer="openai-chat")

The two tables below are the promises of the contract, each with its check. With ``answer`` the kit runs a loopback
server that sends this answer, and sends it broken in the ways of real servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

from completion.contract.errors import Permanent, Transient
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest
from completion.testing.conformance import streams, wires
from completion.testing.conformance.answers import ErrorEvent, answers_of
from completion.testing.conformance.subject import Subject, ThreadedCall
from completion.testing.replies import Reply

__all__ = ["PROMISES", "PROMISES_OF_THE_WIRE", "check_completion_model"]

Check = Callable[[Subject], Iterator[str]]
"""Yields a description of each fault that it finds."""

ANSWERS = "chat_stream answers a good request with a stream of chunks"

PROMISES: Mapping[str, Check] = MappingProxyType(
    {
        "name and model are non-empty strings that never change": streams.has_name_and_model,
        "chat_stream returns a generator that is not an async iterator too": streams.returns_a_generator,
        "the call, not next(), raises for a request that cannot be sent": streams.refuses_at_the_call,
        "every chunk is a StreamChunk": streams.yields_only_chunks,
        "the last chunk, and no other, is a TurnFinished": streams.ends_with_turn_finished,
        "after the end each next() raises StopIteration": streams.stays_at_the_end,
        "a tool call ends once, with its id and name, before anything else starts": streams.ends_tool_calls,
        "reasoning ends before text, a tool call or the end of turn": streams.ends_reasoning,
        "no delta is empty": streams.yields_no_empty_delta,
        "tool call ids are unique and not empty": streams.has_unique_call_ids,
        "the deltas of a tool call add up to its arguments": streams.has_deltas_that_add_up,
        "input_tokens and output_tokens are totals that include their parts": streams.counts_totals,
        "every chunk round-trips through to_json and from_json": streams.round_trips_through_json,
        "no repr shows a key from the model's attributes": streams.hides_its_keys_in_reprs,
        "close() ends a stream at any time and can be called twice": streams.closes_early,
        "close() leaves no connection open": streams.closes_its_connections,
        "a stream that is a context manager is closed at the end of its block": streams.closes_at_the_end_of_its_block,
        "each thread that shares a model gets its own complete answer": streams.serves_each_thread,
        "a model pickles, and the copy answers": streams.pickles,
        "cancel() from another thread ends a stream with StreamCancelledError": streams.is_cancelled_by_a_thread,
        "cancel() after the end does nothing": streams.ignores_cancel_after_the_end,
        "under a cancelled CancelToken a stream raises StreamCancelledError": streams.obeys_a_cancelled_token,
    }
)
"""For every model."""

PROMISES_OF_THE_WIRE: Mapping[str, Check] = MappingProxyType(
    {
        "the call waits for the headers of the response": wires.waits_for_the_headers,
        "a ChatStream has the status of its response when the call returns": wires.has_its_response,
        "the call raises for a refused connection": wires.refuses_without_a_server,
        "the call raises for a 401, and the error is Permanent": wires.refuses(wires.refusal(401), Permanent()),
        "the call raises for a 429, and the error is Transient with its retry-after": wires.refuses(
            wires.refusal(429, headers={"Retry-After": f"{wires.RETRY_AFTER_S:g}"}), Transient(wires.RETRY_AFTER_S)
        ),
        "the call raises for a 500, and the error is Transient": wires.refuses(wires.refusal(500), Transient()),
        "the call raises for a redirect and does not follow it": wires.refuses(wires.REDIRECT),
        "the call raises for a 200 with an HTML page": wires.refuses(wires.HTML),
        "an error of the call keeps no connection open": wires.keeps_no_refused_connection,
        "a pickled model keeps the key that it was given": wires.copies_its_key,
        "no repr shows the key": wires.hides_its_key_in_reprs,
        "no URL contains the key": wires.hides_its_key_in_urls,
        "no log contains the key": wires.hides_its_key_in_logs,
        "no error contains the key, and no local variable in its traceback does": wires.hides_its_key_in_errors,
        "the request contains the prompt": wires.sends_the_prompt,
        "the chunks have the content and the usage of the server's answer": wires.reads_the_answer,
        "an answer is the same in pieces of any size": wires.reads_any_pieces,
        "next() raises if the body ends before the end of turn": wires.raises_for_short_bodies,
        "next() raises if the connection breaks before the end of turn": wires.raises_for_broken_connections,
        "invalid JSON in mid-stream raises an error": wires.raises_for_bad_events,
        "an error event inside a 200 raises an error": wires.raises_for_error_events,
        "an error loses no chunk before it, and then next() raises StopIteration": wires.ends_after_an_error,
        "an error of the stream has a retry_classification()": wires.classifies_errors,
        "a chunk is yielded when its event arrives, not when the body ends": wires.yields_chunks_as_they_arrive,
        "close() closes the connection, whether or not a chunk was read": wires.hangs_up_when_closed,
        "dropping the stream closes the connection, whether or not a chunk was read": wires.hangs_up_when_dropped,
        "cancel() ends a blocked next() and closes the connection": wires.hangs_up_when_cancelled,
    }
)
"""For a model with an ``answer``, in addition to PROMISES."""

_FIRST_ANSWER_S = 60.0  # a model may have to load its weights
_CHECK_S = 10.0
_MAX_HUNG_CHECKS = 3
_MAX_FAULTS_SHOWN = 3
_MAX_FAULT_CHARS = 600


def check_completion_model(
    factory: Callable[..., CompletionModel],
    *,
    answer: Reply | str | bytes | Iterable[bytes] | None = None,
    error: ErrorEvent | None = None,
    request: ChatRequest = ChatRequest("Hi"),  # noqa: B008  immutable
) -> None:
    """Raise an AssertionError that lists every promise that the models of the factory break.

    Args:
        factory: makes a new model for each check. Without ``answer`` it is called without arguments, and its models
            must answer any number of requests. With ``answer`` it is called with ``base_url=`` and ``api_key=``, or
            with one of them if it accepts only one; a factory with one parameter of another name gets the URL.
        answer: a good answer in the adapter's wire format: a Reply, the bytes of its body, or the bytes of each event.
            Or the name of a wire that the kit knows: ``"openai-chat"``, ``"openai-responses"``, ``"anthropic"``,
            ``"gemini"``, ``"gemini-interactions"``, ``"ollama"``, ``"cohere"``. Bytes are
            server-sent events, or newline-delimited JSON if they begin with ``{``.
        error: for an answer of your own: makes the bytes of an error event with the given message, as the provider
            sends it inside a 200. None: errors inside a 200 are not checked.
        request: the request that the models get.

    Without ``answer`` the kit cannot check how a model reacts to a bad server (refusals, cut bodies, errors in a 200,
    stalls), nor whether the answers of two threads mix: a model may answer differently each time.
    Each check may take ten seconds, so a wrapper that retries needs a small ``base_delay``.

    Raises:
        AssertionError: a line for each broken promise, with the faults that were found.
        TypeError: ``factory`` is not callable, or accepts no URL although there is an ``answer``, or needs arguments
            although there is none; or ``error`` is not a function, or is given without an answer of your own.
        ValueError: ``answer`` is an unknown name, or empty.
    """
    if answer is None and error is not None:
        raise TypeError("error= is for answers of your own: give answer= as well")
    subject = Subject(factory, None if answer is None else answers_of(answer, error), request)
    faults = dict(faults_by_promise(subject))
    broken = [f"{promise}: {_one_line(found)}" for promise, found in faults.items() if found]
    if broken:
        unchecked = len(promises_of(subject)) - len(faults)
        rest = f", and {unchecked} were not checked" if unchecked else ""
        head = f"the model breaks {len(broken)} of {len(faults)} promises{rest}"
        raise AssertionError("\n- ".join([head, *broken]).replace(subject.key, "[key]"))


def promises_of(subject: Subject) -> list[str]:
    """The promises that are checked, in their order."""
    return [ANSWERS, *PROMISES, *(PROMISES_OF_THE_WIRE if subject.has_server else ())]


def faults_by_promise(subject: Subject, check_s: float | None = None) -> Iterator[tuple[str, list[str]]]:
    """Each promise with the faults that were found, once it is checked.

    It ends early if the model does not answer at all, or if several checks hang.

    Args:
        check_s: how many seconds a check may take; None: ten, and longer for the first answer.
    """
    first_s = check_s or (_CHECK_S if subject.has_server else _FIRST_ANSWER_S)
    check_s = check_s or _CHECK_S
    first = _faults_of(streams.answers, subject, first_s)
    yield ANSWERS, first
    if first:
        return
    if subject.has_server:
        _find_first_chunk(subject)
    for promise, check in {**PROMISES, **(PROMISES_OF_THE_WIRE if subject.has_server else {})}.items():
        if subject.hung_checks >= _MAX_HUNG_CHECKS:
            return
        yield promise, _faults_of(check, subject, check_s)


def _faults_of(check: Check, subject: Subject, seconds: float) -> list[str]:
    """The faults that the check finds. An exception of the check is a fault, and so is a check that does not end."""
    faults: list[str] = []
    call = ThreadedCall(lambda: faults.extend(check(subject)))
    if not call.ended_within(seconds):
        subject.release()
        return [*faults, f"the check did not end within {seconds:g} s"]
    error = call.error
    if error is not None and not isinstance(error, Exception):  # a test framework skips a test with it
        raise error
    return faults if error is None else [*faults, f"{type(error).__name__} was raised: {error}"]


def _find_first_chunk(subject: Subject) -> None:
    """Set ``events_to_first_chunk``, which many checks need."""

    def find() -> None:
        subject.events_to_first_chunk = wires.events_to_first_chunk(subject)

    if not ThreadedCall(find).ended_within(_CHECK_S):
        subject.release()


def _one_line(faults: list[str]) -> str:
    shown = [
        fault if len(fault) <= _MAX_FAULT_CHARS else f"{fault[:_MAX_FAULT_CHARS]}…"
        for fault in faults[:_MAX_FAULTS_SHOWN]
    ]
    more = [f"and {len(faults) - _MAX_FAULTS_SHOWN} more"] if len(faults) > _MAX_FAULTS_SHOWN else []
    return " ".join("; ".join([*shown, *more]).split())
