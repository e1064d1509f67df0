"""The adapter of docs/howto/provider.rst keeps the promises of ours, and uses public names only."""

from __future__ import annotations

import gc
import importlib
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final

import pytest

import completion
from completion import (
    AuthenticationError,
    CacheControl,
    CancelToken,
    ChatRequest,
    CompletionError,
    ConfigurationError,
    FinishReason,
    IdleTimeoutError,
    ImageBlock,
    MalformedStreamError,
    Message,
    OverloadedError,
    ProviderBlock,
    ReasoningBlock,
    RedactedReasoningBlock,
    RetryConfig,
    RetryingModel,
    StreamCancelledError,
    StreamError,
    TextBlock,
    Timeout,
    ToolCallBlock,
    ToolChoice,
    ToolDefinition,
    ToolResultBlock,
    TransportError,
    TruncatedStreamError,
    UnsupportedContentError,
    UrlSource,
    Usage,
)
from completion.adapters import HttpModel
from completion.testing import Cut, ProviderServer, Reply, Stall, check_completion_model
from completion.wires import TurnReader, Wire, ndjson_events
from tests.documents import DOCS, program_of
from tests.loopback import HI, KEY, PATIENCE_S, Caught
from tests.transport.test_secrets import chain, held, shown

PAGE: Final = program_of(DOCS / "howto" / "provider.rst")
NDJSON: Final = "application/x-ndjson"
ENTRY_POINTS: Final = "[completion.adapters]\nacme = acme_llm:AcmeModel\n"

pytestmark = pytest.mark.skipif(sys.version_info < PAGE.least_python, reason="the page shows what newer Pythons have")


def line(**event: Any) -> bytes:
    return json.dumps(event).encode() + b"\n"


def error_line(message: str) -> bytes:
    return line(error={"code": "overloaded", "message": message})


def answer(*lines: Any, **options: Any) -> Reply:
    return Reply(*lines, content_type=NDJSON, **options)


END: Final = line(end="stop", tokens_in=12, tokens_out=9)
TURN: Final = (line(text="Grüße "), line(text="🙂"), END)
ANSWER: Final = (
    line(text="Let me look."),
    line(call="c1", tool="get_weather", input='{"city":'),
    line(call="c1", input=' "Köln"}'),
    END,
)


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of the page, in a package that is installed."""
    PAGE.write(tmp_path)
    info = tmp_path / "acme_llm-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-llm\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("ACME_API_KEY", raising=False)
    yield importlib.import_module("acme_llm")
    del sys.modules["acme_llm"]


MakeModel = Callable[..., Any]


@pytest.fixture
def model_of(acme: ModuleType) -> MakeModel:
    def make(server: ProviderServer, **options: Any) -> Any:
        given = {"api_key": KEY, "base_url": server.url, "timeout": Timeout(read=PATIENCE_S), **options}
        return acme.AcmeModel("acme-1", **given)

    return make


# --- the page ----------------------------------------------------------------------------------------------------


def test_the_adapter_has_fewer_than_sixty_lines() -> None:
    assert len([text for text in PAGE.files["acme_llm.py"].splitlines() if text.strip()]) < 60


def test_the_adapter_imports_public_names_only() -> None:
    imports = [text.split()[1] for text in PAGE.files["acme_llm.py"].splitlines() if text.startswith("from ")]
    assert set(imports) == {"collections.abc", "typing", "completion"}


def test_its_family_is_found_by_its_entry_point(acme: ModuleType, server: ProviderServer) -> None:
    server.reply(answer(*TURN))
    model = completion.model("acme:acme-1", base_url=server.url, api_key=KEY)
    assert type(model) is acme.AcmeModel
    assert (model.name, model.model) == ("acme", "acme-1")
    assert completion.collect(model.chat_stream(HI)).text == "Grüße 🙂"


# --- conformance -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [ANSWER, b"".join(ANSWER), Reply(*ANSWER, content_type="application/jsonl", split=7)],
    ids=["events", "bytes", "reply"],
)
def test_the_adapter_keeps_the_contract(acme: ModuleType, given: Any) -> None:
    if isinstance(given, Reply):
        acme.AcmeModel.wire = Wire(
            "acme", acme.lower, acme.AcmeTurn.assemble, events=ndjson_events, accept="application/jsonl"
        )
    check_completion_model(lambda **options: acme.AcmeModel("m", **options), answer=given, error=error_line)


def test_the_adapter_keeps_the_contract_under_retries(acme: ModuleType) -> None:
    config = RetryConfig(max_attempts=2, base_delay=0, max_retry_after=0.5)
    check_completion_model(
        lambda **options: RetryingModel(acme.AcmeModel("m", **options), config), answer=ANSWER, error=error_line
    )


def broken_promises(acme: ModuleType, turn: type[TurnReader]) -> str:
    wire = Wire("acme", acme.lower, turn.assemble, events=ndjson_events, accept=NDJSON)
    kind = type("Broken", (acme.AcmeModel,), {"wire": wire})
    with pytest.raises(AssertionError) as caught:
        check_completion_model(lambda **options: kind("m", **options), answer=ANSWER, error=error_line)
    return str(caught.value)


def test_the_kit_fails_an_adapter_that_ignores_error_lines(acme: ModuleType) -> None:
    class IgnoresErrors(acme.AcmeTurn):  # type: ignore[misc, name-defined]
        def take(self, name: str, data: dict[str, Any]) -> Any:
            if "error" in data:
                self.expect_nothing()
            return () if "error" in data else super().take(name, data)

    assert "\n- an error event inside a 200 raises an error: after 0 events" in broken_promises(acme, IgnoresErrors)


def test_the_kit_fails_an_adapter_that_keeps_the_event_in_its_error(acme: ModuleType) -> None:
    class KeepsEvent(acme.AcmeTurn):  # type: ignore[misc, name-defined]
        def take(self, name: str, data: dict[str, Any]) -> Any:
            try:
                return super().take(name, data)
            except CompletionError as error:
                error.data = data  # type: ignore[attr-defined]
                raise

    report = broken_promises(acme, KeepsEvent)
    promise = "no error contains the key, and no local variable in its traceback does"
    assert f"{promise}: after an error event that echoes the key" in report


def test_the_kit_fails_an_adapter_that_takes_a_cut_answer_for_a_complete_one(acme: ModuleType) -> None:
    class AcceptsCuts(acme.AcmeTurn):  # type: ignore[misc, name-defined]
        is_over = True

    report = broken_promises(acme, AcceptsCuts)
    assert "\n- next() raises if the body ends before the end of turn: after 0 of 4 events" in report
    assert "\n- next() raises if the connection breaks before the end of turn: after 0 of 4 events" in report


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (ANSWER, b"{}", "error= must be a function from a message to the bytes of an event, got bytes"),
        ("openai-chat", error_line, "error= is for answers of your own; the kit knows the errors of 'openai-chat'"),
        (None, error_line, "error= is for answers of your own: give answer= as well"),
    ],
    ids=["not a function", "a known wire", "no answer"],
)
def test_an_unusable_error_argument_is_a_type_error(acme: ModuleType, given: Any, error: Any, words: str) -> None:
    with pytest.raises(TypeError) as caught:
        check_completion_model(acme.AcmeModel, answer=given, error=error)
    assert str(caught.value) == words


# --- the request -------------------------------------------------------------------------------------------------

TOOL: Final = ToolDefinition("get_weather", "The weather.", {"type": "object"})


def test_the_request_contains_every_field(server: ProviderServer, model_of: MakeModel) -> None:
    server.reply(answer(*TURN))
    history = [
        Message.user("Warm?"),
        Message.assistant(
            [
                ReasoningBlock("Hm."),
                RedactedReasoningBlock("x"),
                ProviderBlock("anthropic", {"type": "server_tool_use"}),
                ToolCallBlock("c1", "get_weather", {"city": "Köln"}),
            ]
        ),
        Message.tool_result("c1", "24", is_error=True),
    ]
    model_of(server).chat_stream(ChatRequest(history, system_prompt="Be brief.", tools=[TOOL], temperature=0.5))
    (request,) = server.requests
    assert (request.path, request.header("accept")) == ("/answer", NDJSON)
    assert request.header("authorization") == f"Bearer {KEY}"
    assert request.json() == {
        "model": "acme-1",
        "system": "Be brief.",
        "entries": [
            {"from": "user", "text": "Warm?"},
            {"call": "c1", "tool": "get_weather", "input": {"city": "Köln"}},
            {"result": "c1", "text": "24", "failed": True},
        ],
        "tools": [{"name": "get_weather", "about": "The weather.", "schema": {"type": "object"}}],
        "max_tokens": 4096,
        "temperature": 0.5,
    }


def test_a_dropped_field_is_listed(server: ProviderServer, model_of: MakeModel) -> None:
    server.reply(answer(*TURN))
    message = Message.user([TextBlock("Hi", cache_control=CacheControl())])
    request = ChatRequest([message], top_k=3, top_p=0.5, seed=0, temperature=0.0, reasoning_effort="low")
    dropped = model_of(server).chat_stream(request).response.dropped
    assert dropped == ("top_p", "top_k", "seed", "reasoning_effort", "cache_control")


IMAGE: Final = ImageBlock(UrlSource("http://127.0.0.1/a.png"))


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ChatRequest("Hi", stop_sequences=["x"]), "stop_sequences cannot be sent"),
        (ChatRequest("Hi", response_format="json"), "response_format cannot be sent"),
        (ChatRequest("Hi", tools=[TOOL], tool_choice=ToolChoice.any()), "tool_choice='any' cannot be sent"),
        (ChatRequest("Hi", tools=[TOOL], parallel_tool_use=False), "parallel_tool_use=False cannot be sent"),
        (ChatRequest([Message.user([IMAGE])]), "ImageBlock cannot be sent: Acme reads only text"),
    ],
    ids=lambda given: "" if isinstance(given, ChatRequest) else given.partition(" ")[0],
)
def test_an_unsupported_field_that_would_change_the_answer_is_refused(
    server: ProviderServer, model_of: MakeModel, request_: ChatRequest, words: str
) -> None:
    with pytest.raises(UnsupportedContentError) as caught:
        model_of(server).chat_stream(request_)
    assert str(caught.value).startswith(f"acme: {words}")
    assert server.connections == 0


def test_an_image_that_a_tool_returned_becomes_a_sentence(server: ProviderServer, model_of: MakeModel) -> None:
    server.reply(answer(*TURN))
    called = Message.assistant([ToolCallBlock("c1", "f", {})])
    results = Message("user", [ToolResultBlock("c1", [TextBlock("a"), IMAGE])])
    model_of(server).chat_stream(ChatRequest([Message.user("Hi"), called, results])).collect()
    (entry,) = [entry for entry in server.requests[0].json()["entries"] if "result" in entry]
    assert entry["text"] == "a[image: it cannot be shown to this model]"


# --- the answer --------------------------------------------------------------------------------------------------


def test_the_turn_contains_what_the_server_sent(server: ProviderServer, model_of: MakeModel) -> None:
    server.reply(answer(*ANSWER), answer(line(text="a"), line(end="length")), answer(line(end="whatever")))
    turns = [model_of(server).chat_stream(HI).collect() for _ in range(3)]
    assert [turn.reason for turn in turns] == [FinishReason.TOOL_USE, FinishReason.MAX_TOKENS, FinishReason.OTHER]
    assert turns[0].usage == Usage(input_tokens=12, output_tokens=9)
    assert turns[0].message.blocks == (
        TextBlock("Let me look."), ToolCallBlock("c1", "get_weather", {"city": "Köln"}),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rest", "kind"), [([], TruncatedStreamError), ([Cut()], TransportError), ([b'{"text": "lo'], TruncatedStreamError)]
)
def test_a_cut_answer_is_an_error_with_the_partial_turn(
    server: ProviderServer, model_of: MakeModel, rest: list[Any], kind: type[StreamError]
) -> None:
    server.reply(answer(line(text="Hel"), *rest))
    with pytest.raises(kind) as caught:
        model_of(server).chat_stream(HI).collect()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hel"


def test_a_line_that_is_not_json_is_an_error(server: ProviderServer, model_of: MakeModel) -> None:
    server.reply(answer(line(text="Hel"), b"{oops}\n", END))
    with pytest.raises(MalformedStreamError):
        model_of(server).chat_stream(HI).collect()


def test_events_of_an_unknown_shape_are_skipped(server: ProviderServer, model_of: MakeModel) -> None:
    server.reply(answer(b"7\n", b"[]\n", b'"x"\n', line(text=3), line(call=[], input={}), line(new={}), *TURN))
    assert model_of(server).chat_stream(HI).collect().text == "Grüße 🙂"


def test_an_error_line_is_raised_as_the_error_of_its_code(server: ProviderServer, model_of: MakeModel) -> None:
    server.reply(answer(line(text="Hel"), error_line("Too many requests")))
    with pytest.raises(OverloadedError) as caught:
        model_of(server).chat_stream(HI).collect()
    assert str(caught.value) == "acme: Too many requests (overloaded)"


def test_a_refusal_is_raised_as_the_error_of_its_status(server: ProviderServer, model_of: MakeModel) -> None:
    server.reply(Reply.json({"error": {"message": "Who?"}}, status=401))
    with pytest.raises(AuthenticationError, match="acme: Who\\?"):
        model_of(server).chat_stream(HI)


def test_a_failure_before_the_first_chunk_is_retried(server: ProviderServer, model_of: MakeModel) -> None:
    server.reply(Reply.text("", status=503), answer(error_line("Busy")), answer(Cut()), answer(*TURN))
    model = RetryingModel(model_of(server), RetryConfig(max_attempts=4, base_delay=0))
    assert model.chat_stream(HI).collect().text == "Grüße 🙂"
    assert len(server.requests) == 4


# --- the connection ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("way", ["close", "drop", "break"])
def test_leaving_early_hangs_up(server: ProviderServer, model_of: MakeModel, way: str, reads: bool) -> None:
    server.reply(answer(line(text="Hel"), Stall()))
    stream = model_of(server).chat_stream(HI)
    if reads:
        assert next(stream).delta == "Hel"
    if way == "break":
        with stream:
            pass
    elif way == "close":
        stream.close()
    del stream
    gc.collect()
    assert server.wait_hung_up(PATIENCE_S)


@pytest.mark.parametrize("way", ["stream", "token"])
def test_cancel_from_another_thread_ends_a_blocked_read(server: ProviderServer, model_of: MakeModel, way: str) -> None:
    server.reply(answer(line(text="Hel"), Stall()))
    token, has_begun, opened = CancelToken(), threading.Event(), list[Any]()

    def read() -> None:
        with token:
            opened.append(model_of(server).chat_stream(HI))
            for _ in opened[0]:
                has_begun.set()

    reading = Caught(read)
    assert has_begun.wait(PATIENCE_S)
    (opened[0] if way == "stream" else token).cancel()
    assert isinstance(reading.within(PATIENCE_S).error, StreamCancelledError)
    assert server.wait_hung_up(PATIENCE_S)


def test_cancel_ends_the_wait_for_headers(server: ProviderServer, model_of: MakeModel) -> None:
    server.reply(Reply(before_headers=[Stall()]))
    token = CancelToken()

    def call() -> None:
        with token:
            model_of(server).chat_stream(HI)

    waiting = Caught(call)
    assert server.wait_for_requests(1, PATIENCE_S)
    token.cancel()
    assert isinstance(waiting.within(PATIENCE_S).error, StreamCancelledError)


def test_silence_is_an_idle_timeout(server: ProviderServer, model_of: MakeModel) -> None:
    server.reply(answer(line(text="Hel"), Stall()))
    with pytest.raises(IdleTimeoutError):
        model_of(server, timeout=Timeout(read=0.2)).chat_stream(HI).collect()


def test_a_body_that_stays_open_after_the_end_is_not_waited_for(server: ProviderServer, model_of: MakeModel) -> None:
    server.reply(answer(*TURN, Stall(PATIENCE_S * 3)))
    asking = Caught(lambda: model_of(server).chat_stream(HI).collect().text)
    assert asking.within(PATIENCE_S).result == "Grüße 🙂"


FORKED: Final = """\
import gc, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork() in a process with threads
from acme_llm import AcmeModel
from completion import TransportError

def forked(work):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

model = AcmeModel("m", base_url=sys.argv[1], api_key="k")
assert model.chat_stream("pooled").collect().text == "Grüße 🙂"
stream = model.chat_stream("read by the parent")
next(stream)

def child():
    global stream
    try:
        next(stream)
    except TransportError as error:
        assert "forked" in str(error)
    stream.cancel()
    del stream
    gc.collect()
    assert model.chat_stream("the child's own").collect().text == "Grüße 🙂"
    model.close()

forked(child)
assert "".join(chunk.delta for chunk in stream if chunk.type == "text_delta") == "🙂"
assert model.chat_stream("after").collect().text == "Grüße 🙂"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_leaves_the_parents_streams_alone(
    acme: ModuleType, server: ProviderServer, tmp_path: Path
) -> None:
    server.always(answer(*TURN))
    script = tmp_path / "forked.py"
    script.write_text(FORKED, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "error", str(script), server.url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert len(server.requests) == 4


# --- the key -----------------------------------------------------------------------------------------------------


def assert_no_frame_has_the_key(error: BaseException) -> None:
    """The error, its causes and contexts, and the variables of all frames except those of the tests show no key."""
    for one in chain(error):
        for view in (str(one), repr(one), shown(vars(one))):
            assert KEY not in view
        for place, variables in _frames(one.__traceback__):
            for name, value in variables.items():
                assert not [view for view in held(value) if KEY in view], f"{name} in {place}"
    assert KEY.encode() not in pickle.dumps(error)


def _frames(trace: TracebackType | None) -> Iterator[tuple[str, dict[str, Any]]]:
    own = str(Path(__file__).parents[1])
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(own) and "_pytest" not in file:
            yield f"{file}:{trace.tb_lineno}", dict(trace.tb_frame.f_locals)
        trace = trace.tb_next


@pytest.mark.parametrize("source", ["string", "callable", "environment"])
@pytest.mark.parametrize(
    "reply",
    [
        Reply.json({"error": {"message": f"Bad key {KEY}"}}, status=401),
        Reply.text(f"<html>{KEY}</html>", "text/html"),
        answer(error_line(f"Bad key {KEY}")),
        answer(line(text="Hel"), error_line(f"Bad key {KEY}")),
        answer(line(text="Hel"), f"{{{KEY}\n"),
        answer(line(text="Hel"), Cut()),
        Reply(before_headers=[Cut()]),
        answer(line(text="Hel"), Stall()),
    ],
    ids=["401", "HTML", "error line", "late error line", "bad JSON", "cut", "no headers", "silence"],
)
def test_the_key_is_in_no_frame_of_an_error(
    server: ProviderServer, model_of: MakeModel, monkeypatch: pytest.MonkeyPatch, reply: Reply, source: str
) -> None:
    if source == "environment":
        monkeypatch.setenv("ACME_API_KEY", KEY)
    key = {"string": KEY, "callable": lambda: KEY, "environment": None}[source]
    server.reply(reply)
    with pytest.raises(CompletionError) as caught:
        model_of(server, api_key=key, timeout=Timeout(read=0.3)).chat_stream(HI).collect()
    assert server.requests[0].header("authorization") == f"Bearer {KEY}"
    assert_no_frame_has_the_key(caught.value)


def test_the_key_is_in_no_frame_when_the_adapter_itself_fails(
    acme: ModuleType, server: ProviderServer, model_of: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(turn: TurnReader, name: str, data: dict[str, Any]) -> Any:
        raise failures[len(server.requests) - 1](data)

    failures: list[Callable[[Any], Exception]] = [KeyError, lambda data: ValueError("nothing said")]
    monkeypatch.setattr(acme.AcmeTurn, "take", take)
    server.always(answer(line(text=KEY)))
    for shown_as in ("KeyError({'text': '[key]'})", "ValueError('nothing said')"):
        with pytest.raises(MalformedStreamError) as caught:
            model_of(server).chat_stream(HI).collect()
        assert shown_as in str(caught.value)
        assert_no_frame_has_the_key(caught.value)


@pytest.mark.parametrize("options", [{"base_url": "no URL"}, {"timeout": -1}, {"headers": {"X-A": "a\nb"}}])
@pytest.mark.parametrize("made", ["client", "model", "registry"])
def test_a_bad_option_shows_no_key(acme: ModuleType, made: str, options: dict[str, Any]) -> None:
    make: dict[str, Callable[..., Any]] = {
        "client": acme.AcmeClient,
        "model": partial(acme.AcmeModel, "m"),
        "registry": partial(completion.model, "acme:m"),
    }
    with pytest.raises((CompletionError, ValueError)) as caught:
        make[made](api_key=KEY, **options)
    assert_no_frame_has_the_key(caught.value)


def test_the_error_about_a_missing_key_names_the_variable(server: ProviderServer, model_of: MakeModel) -> None:
    with pytest.raises(ConfigurationError, match="acme: no API key: set ACME_API_KEY or give api_key="):
        model_of(server, api_key=None).chat_stream(HI)


def test_a_pickle_contains_a_given_key_but_no_key_of_the_environment(
    server: ProviderServer, model_of: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.always(answer(*TURN))
    assert pickle.loads(pickle.dumps(model_of(server))).chat_stream(HI).collect().text == "Grüße 🙂"
    monkeypatch.setenv("ACME_API_KEY", KEY)
    pickled = pickle.dumps(model_of(server, api_key=None))
    assert KEY.encode() not in pickled
    monkeypatch.setenv("ACME_API_KEY", "another")
    pickle.loads(pickled).chat_stream(HI).collect()
    assert [request.header("authorization") for request in server.requests] == [f"Bearer {KEY}", "Bearer another"]


def test_models_of_one_client_share_its_connection(acme: ModuleType, server: ProviderServer) -> None:
    server.always(answer(*TURN))
    client = acme.AcmeClient(api_key=KEY, base_url=server.url)
    for model_id in ("one", "two"):
        model: HttpModel = acme.AcmeModel(model_id, client=client)
        model.chat_stream(HI).collect()
    assert [request.json()["model"] for request in server.requests] == ["one", "two"]
    assert server.connections == 1
