"""Whether a model keeps the contract: a check for the test suites of those who write adapters.

    def test_it_keeps_the_contract():
        check_completion_model(lambda: MyModel(...))                                     # answers by itself

    def test_it_keeps_the_contract_on_the_wire():
        check_completion_model(lambda base_url, api_key: MyModel("m", base_url, api_key), answer="openai-chat")

The tables below are the promises. With ``answer`` the kit runs a server on loopback that gives this answer, and breaks
it in every way that real ones do. Needs no test framework.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

from completion.contract.errors import Permanent, Transient
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest
from completion.testing.conformance import streams, wires
from completion.testing.conformance.answers import ErrorEvent, answers_of
from completion.testing.conformance.subject import Aside, Subject
from completion.testing.replies import Reply

__all__ = ["PROMISES", "PROMISES_OF_THE_WIRE", "check_completion_model"]

Check = Callable[[Subject], Iterator[str]]
"""Yields what was seen of a broken promise."""

ANSWERS = "chat_stream answers a good request with a stream of chunks"

PROMISES: Mapping[str, Check] = MappingProxyType(
    {
        "name and model are strings, not empty, and never change": streams.has_name_and_model,
        "chat_stream returns a generator, which is not async as well": streams.returns_a_generator,
        "a request that cannot be sent is refused by the call, not by next()": streams.refuses_at_the_call,
        "every chunk is a StreamChunk": streams.gives_chunks_only,
        "exactly one TurnFinished ends the turn, as the last chunk": streams.ends_with_turn_finished,
        "after its end a stream gives StopIteration, however often it is asked": streams.stays_at_its_end,
        "a call is closed once, under its id and name, before anything else starts": streams.closes_calls,
        "reasoning is closed before text, a call or the end": streams.closes_reasoning,
        "no delta is empty": streams.gives_no_empty_delta,
        "call ids are unique and not empty": streams.gives_unique_call_ids,
        "the deltas of a call add up to its arguments": streams.gives_the_arguments_piece_by_piece,
        "input_tokens and output_tokens are totals, at least the sum of their parts": streams.counts_totals,
        "every chunk round-trips through to_json and from_json": streams.round_trips_through_json,
        "a key among its attributes is in no repr": streams.keeps_its_keys_out_of_reprs,
        "close() ends a stream at any time, and may be called twice": streams.closes_early,
        "close() leaves no connection open": streams.closes_its_connections,
        "leaving the with closes a stream that is a context manager": streams.closes_with_the_with,
        "threads that share a model each get an answer of their own, whole": streams.keeps_threads_apart,
        "a model pickles, and the copy answers": streams.pickles,
        "cancel() from another thread ends a stream with StreamCancelledError": streams.is_cancelled_from_afar,
        "cancel() after the end does nothing": streams.is_not_cancelled_after_its_end,
        "under a cancelled CancelToken a stream raises StreamCancelledError": streams.heeds_a_cancelled_token,
    }
)
"""Of every model."""

PROMISES_OF_THE_WIRE: Mapping[str, Check] = MappingProxyType(
    {
        "the call waits for the response's headers": wires.waits_for_the_headers,
        "a ChatStream knows its response's status when the call returns": wires.knows_its_response,
        "a refused connection is an error of the call": wires.refuses_without_a_server,
        "a 401 is an error of the call, and Permanent": wires.refuses(wires.refusal(401), Permanent()),
        "a 429 is an error of the call, and Transient with its retry-after": wires.refuses(
            wires.refusal(429, headers={"Retry-After": f"{wires.RETRY_AFTER_S:g}"}), Transient(wires.RETRY_AFTER_S)
        ),
        "a 500 is an error of the call, and Transient": wires.refuses(wires.refusal(500), Transient()),
        "a redirect is an error of the call, and not followed": wires.refuses(wires.REDIRECT),
        "a 200 with an HTML page is an error of the call": wires.refuses(wires.HTML),
        "an error of the call holds no connection": wires.lets_go_of_refused_connections,
        "a given key travels in the pickle": wires.its_copy_keeps_the_key,
        "the key is in no repr": wires.keeps_its_key_out_of_reprs,
        "the key is in no URL": wires.keeps_its_key_out_of_urls,
        "the key is in no log": wires.keeps_its_key_out_of_logs,
        "the key is in no error, nor in the locals of its traceback": wires.keeps_its_key_out_of_errors,
        "the request says what was asked": wires.sends_what_was_asked,
        "the answer says what the server said, and counts its tokens": wires.reads_what_was_said,
        "an answer is the same in whatever pieces it comes": wires.reads_any_pieces,
        "a body that ends before the end of turn is an error of next()": wires.raises_when_short,
        "a connection that breaks before the end of turn is an error of next()": wires.raises_when_cut,
        "bad JSON in mid-stream is an error": wires.raises_for_bad_events,
        "an error event inside a 200 is an error": wires.raises_for_errors_in_band,
        "after an error the chunks before it stay given, and next() gives StopIteration": wires.is_over_after_an_error,
        "an error of the stream says by retry_classification() whether to try again": wires.classifies_errors,
        "a chunk is given when its event arrives, not when the body ends": wires.gives_chunks_as_they_arrive,
        "close() hangs up, whether or not a chunk was read": wires.hangs_up_when_closed,
        "dropping the stream hangs up, whether or not a chunk was read": wires.hangs_up_when_dropped,
        "cancel() ends a next() that is blocked, and hangs up": wires.hangs_up_when_cancelled,
    }
)
"""Of a model that speaks HTTP, beside those above."""

_FIRST_ANSWER_S = 60.0  # a model may have to load its weights
_CHECK_S = 10.0
_MOST_HUNG = 3
_MOST_SEEN = 3
_MOST_LETTERS = 600


def check_completion_model(
    factory: Callable[..., CompletionModel],
    *,
    answer: Reply | str | bytes | Iterable[bytes] | None = None,
    error: ErrorEvent | None = None,
    request: ChatRequest = ChatRequest("Hi"),  # noqa: B008  immutable
) -> None:
    """Raise an AssertionError that lists every promise which the factory's models break; else return None.

    Args:
        factory: makes a fresh model for each check. Without ``answer`` it is called without arguments, and its models
            answer by themselves as often as they are asked. With ``answer`` it gets ``base_url`` and ``api_key`` by
            name, those of the two that it takes; a factory whose only parameter has another name gets the URL.
        answer: a good answer in the adapter's own wire: a Reply, the bytes of its body, or of each event of it. Or the
            name of a wire for which the kit has one: ``"openai-chat"``, ``"anthropic"``. Bytes are server-sent events,
            or newline-delimited JSON if they begin with ``{``.
        error: for an answer in the adapter's own wire: makes the bytes of an error event with the given message, as
            the provider sends it inside a 200. None: errors inside a 200 are not checked.
        request: what the models are asked.

    Without ``answer`` nobody sees how a model bears a bad server: its refusals, cut bodies, errors in a 200 and stalls;
    nor whether the words of two threads mix, for a model may say something else each time.
    Give wrappers that retry a small ``base_delay``: each check has ten seconds.

    Raises:
        AssertionError: a line for each broken promise, with what was seen.
        TypeError: the factory is none; or with ``answer`` it takes no URL, or without it cannot do without one; or
            ``error`` is not a function, or is given without an answer of one's own.
        ValueError: ``answer`` is an unknown name, or empty.
    """
    if answer is None and error is not None:
        raise TypeError("error= is for answers of your own: give answer= as well")
    subject = Subject(factory, None if answer is None else answers_of(answer, error), request)
    promises = {**PROMISES, **(PROMISES_OF_THE_WIRE if subject.has_server else {})}
    seen = {ANSWERS: _seen(streams.answers, subject, _CHECK_S if subject.has_server else _FIRST_ANSWER_S)}
    if not seen[ANSWERS]:
        if subject.has_server:
            _look_for_first_chunk(subject)
        for promise, check in promises.items():
            if subject.hung < _MOST_HUNG:
                seen[promise] = _seen(check, subject, _CHECK_S)
    broken = [f"{promise}: {_joined(faults)}" for promise, faults in seen.items() if faults]
    if broken:
        unseen = len(promises) + 1 - len(seen)
        rest = f", and {unseen} were not looked at" if unseen else ""
        head = f"the model breaks {len(broken)} of {len(seen)} promises{rest}"
        raise AssertionError("\n- ".join([head, *broken]).replace(subject.key, "[key]"))


def _seen(check: Check, subject: Subject, seconds: float) -> list[str]:
    """What the check saw; its own failure, or that it does not end, included."""
    faults: list[str] = []
    running = Aside(lambda: faults.extend(check(subject)))
    if not running.ended_within(seconds):
        subject.release()
        return [*faults, f"this did not end within {seconds:g} s"]
    error = running.error
    if error is not None and not isinstance(error, Exception):  # a test framework's own, to skip a test
        raise error
    return faults if error is None else [*faults, f"{type(error).__name__} was raised: {error}"]


def _look_for_first_chunk(subject: Subject) -> None:
    def look() -> None:
        subject.events_to_first_chunk = wires.events_to_first_chunk(subject)

    if not Aside(look).ended_within(_CHECK_S):
        subject.release()


def _joined(faults: list[str]) -> str:
    shown = [fault if len(fault) <= _MOST_LETTERS else f"{fault[:_MOST_LETTERS]}…" for fault in faults[:_MOST_SEEN]]
    more = [f"and {len(faults) - _MOST_SEEN} more"] if len(faults) > _MOST_SEEN else []
    return " ".join("; ".join([*shown, *more]).split())
