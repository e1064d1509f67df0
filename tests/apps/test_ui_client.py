"""The npm package ``ai`` reads our UI message stream from the views of ``docs/howto/usechat.rst``, and posts back.

``ui_client/read.mjs`` does what ``useChat`` does, without React.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from completion import (
    Base64Source,
    ChatRequest,
    Citation,
    FinishReason,
    ImageBlock,
    Message,
    OverloadedError,
    ProviderBlockFinished,
    ReasoningBlock,
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    RedactedReasoningBlock,
    StreamCancelledError,
    TextBlock,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallBlock,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    ToolResultBlock,
    TurnFinished,
    Usage,
)
from completion.testing import ScriptedModel, WaitFor
from completion.testing.scripted import Script
from tests.documents import programs_of_docs
from tests.wire_pieces import anthropic_body, openai_body

CLIENT = Path(__file__).parent / "ui_client"
PACKAGES = {"ai": 18, "ai-7": 20}
"""The names in package.json, and the oldest node that each runs on. (Version 7 asks for node 22, but runs on 20.)"""
INSTALL_S, RUN_S = 120, 60

END = TurnFinished(FinishReason.END_TURN)
BUSY = "The model is busy. Please try again in a moment."


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A folder with the client and its packages, and the version of node."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs node and npm")
    output = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    version = int(output.lstrip("v").partition(".")[0])
    if version < min(PACKAGES.values()):
        pytest.skip(f"needs node {min(PACKAGES.values())} or newer, this is {output.strip()}")
    folder = tmp_path_factory.mktemp("ui_client")
    for name in ("package.json", "read.mjs"):
        shutil.copy(CLIENT / name, folder)
    command = [npm, "install", "--prefer-offline", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S)
    if run.returncode:
        pytest.skip(f"npm cannot install the client:\n{run.stderr[-500:]}")
    return folder, version


def view(framework: str, page: str = "usechat") -> dict[str, Any]:
    """The names in the page's first program for this framework."""
    programs = (program for program in programs_of_docs() if program.name.startswith(f"docs/howto/{page}.rst"))
    program = next(program for program in programs if framework in program.packages)
    module: dict[str, Any] = {"__name__": f"usechat_{framework}"}
    exec(compile(program.source, program.name, "exec"), module)
    return module


def flask_app(model: ScriptedModel) -> Any:
    pytest.importorskip("flask")
    module = view("flask")
    module["model"] = model
    return module["app"]


def django_app(model: ScriptedModel) -> Any:
    pytest.importorskip("django")
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.urls import path

    module = view("django")
    module["model"] = model
    urls = types.ModuleType("urls")
    urls.__dict__["urlpatterns"] = [path("api/chat", module["chat"])]
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["127.0.0.1"])
    settings.ROOT_URLCONF = urls
    return get_wsgi_application()


def approvals_app(model: ScriptedModel) -> Any:
    pytest.importorskip("flask")
    module = view("flask", "approvals")
    module["model"] = model
    return module["app"]


APPS: dict[str, Callable[[ScriptedModel], Any]] = {"Flask": flask_app, "Django": django_app}


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve the view with werkzeug. Yields its URL."""
    serving = pytest.importorskip("werkzeug.serving")
    server = serving.make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}/api/chat"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Chats:
    """The result of a chat: the client's ``messages``, ``status`` and ``error``, how each answer ended (``ends``), and
    the messages that the model got in each request (``histories``)."""

    def __init__(self, output: dict[str, Any], model: ScriptedModel) -> None:
        self.status: str = output["status"]
        self.error: str | None = output.get("error")
        self.ends: list[dict[str, Any]] = output["ends"]
        self.messages: list[dict[str, Any]] = output["messages"]
        self.histories = [request.messages for request in model.requests]

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The parts of the last message."""
        found: list[dict[str, Any]] = self.messages[-1]["parts"]
        return found


Chat = Callable[..., Chats]


@pytest.fixture
def chat(client: tuple[Path, int]) -> Chat:
    """Let the client talk to a scripted model, through a view of the documentation page."""

    folder, version = client

    def chat(
        *scripts: Script,
        say: list[Any],
        framework: str = "Flask",
        app: Callable[[ScriptedModel], Any] | None = None,
        package: str = "ai",
        **scenario: Any,
    ) -> Chats:
        if version < PACKAGES[package]:
            pytest.skip(f"{package} needs node {PACKAGES[package]} or newer")
        said = [[{"type": "text", "text": given}] if isinstance(given, str) else given for given in say]
        with ScriptedModel(*scripts) as model, served((app or APPS[framework])(model)) as api:
            run = subprocess.run(
                ["node", "read.mjs", package],
                input=json.dumps({"api": api, "say": said, **scenario}),
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=RUN_S,
            )
            assert run.returncode == 0, run.stderr
        return Chats(json.loads(run.stdout), model)

    return chat


def text(said: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, "state": "done", **fields}


STEP = {"type": "step-start"}


@pytest.mark.parametrize("framework", APPS)
def test_the_client_reads_the_text_and_how_the_turn_ended(chat: Chat, framework: str) -> None:
    end = TurnFinished(FinishReason.MAX_TOKENS, usage=Usage(input_tokens=9, output_tokens=3), response_id="r1")
    done = chat([TextDelta("Grüezi"), TextDelta(" 😀\n"), end], say=["Hi"], framework=framework)
    assert (done.status, done.error, done.parts) == ("ready", None, [STEP, text("Grüezi 😀\n")])
    assert done.ends == [{"isAbort": False, "isError": False, "isDisconnect": False, "finishReason": "length"}]
    metadata = done.messages[-1]["metadata"]
    assert (metadata["reason"], metadata["responseId"]) == ("max_tokens", "r1")
    assert (metadata["usage"]["inputTokens"], metadata["usage"]["outputTokens"]) == (9, 3)
    assert done.histories == [(Message.user("Hi"),)]


@pytest.mark.parametrize("package", PACKAGES)
def test_provider_specific_content_goes_to_the_client_and_comes_back(chat: Chat, package: str) -> None:
    cited = {"type": "citations", "citations": [{"url": "https://a.ch/", "title": "A"}], "length": 3}
    turn: Script = [
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        ReasoningFinished("s1g"),
        RedactedReasoning("x9"),
        TextDelta("Yes"),
        ProviderBlockFinished("anthropic", cited, (Citation("https://a.ch/", "A"),)),
        TextDelta("."),
        END,
    ]
    done = chat(turn, "Bye.", say=["Hi", "Thanks"], package=package)
    assert [part["type"] for part in done.messages[1]["parts"]] == [
        "step-start",
        "reasoning",
        "reasoning",
        "text",
        "source-url",
        "data-provider-block",
        "text",
    ]
    assert done.histories[1] == (
        Message.user("Hi"),
        Message.assistant(
            [
                ReasoningBlock("hm", "s1g"),
                RedactedReasoningBlock("x9"),
                TextBlock("Yes"),
                TextBlock("."),  # the provider block between them is skipped by default
            ]
        ),
        Message.user("Thanks"),
    )


def call(call_id: str = "c1", signature: str | None = None) -> list[Any]:
    return [
        ToolCallStarted(call_id, "get_weather"),
        ToolCallArgsDelta(call_id, '{"city": '),
        ToolCallArgsDelta(call_id, '"Bern"}'),
        ToolCallFinished(call_id, "get_weather", {"city": "Bern"}, signature),
    ]


USES_TOOL = TurnFinished(FinishReason.TOOL_USE)
WARM = {"celsius": 17}


@pytest.mark.parametrize("framework", APPS)
def test_the_result_of_a_client_side_tool_is_in_the_next_request(chat: Chat, framework: str) -> None:
    turn = [TextDelta("Let me see."), *call(signature="s1g"), USES_TOOL]
    done = chat(turn, "It is warm.", say=["Weather?"], tools={"get_weather": WARM}, framework=framework)
    assert done.histories[1] == (
        Message.user("Weather?"),
        Message.assistant([TextBlock("Let me see."), ToolCallBlock("c1", "get_weather", {"city": "Bern"}, "s1g")]),
        Message.tool_result("c1", '{"celsius":17}'),
    )
    assert [end["finishReason"] for end in done.ends] == ["tool-calls", "stop"]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_answer_after_a_tool_is_a_step_of_the_same_message(chat: Chat, package: str) -> None:
    done = chat([*call(), USES_TOOL], "It is warm.", say=["Weather?"], tools={"get_weather": WARM}, package=package)
    assert [message["role"] for message in done.messages] == ["user", "assistant"]
    assert [part["type"] for part in done.parts] == ["step-start", "tool-get_weather", "step-start", "text"]
    assert (done.parts[1]["state"], done.parts[1]["input"], done.parts[1]["output"]) == (
        "output-available",
        {"city": "Bern"},
        WARM,
    )


def test_the_clients_next_messages_are_valid_on_both_wires(chat: Chat) -> None:
    turn = [ReasoningDelta("hm"), ReasoningFinished("s1g"), *call("c1"), *call("c2"), USES_TOOL]
    failure = {"error": "no such city"}
    done = chat(turn, "Sorry.", "Bye.", say=["Weather?", "Never mind"], tools={"get_weather": failure})
    request = ChatRequest(done.histories[2])
    use = {"type": "tool_use", "name": "get_weather", "input": {"city": "Bern"}}
    failed = {"type": "tool_result", "content": [{"type": "text", "text": "no such city"}], "is_error": True}
    assert anthropic_body(request, "claude-sonnet-4-6")[0]["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s1g"},
                {**use, "id": "c1"},
                {**use, "id": "c2"},
            ],
        },
        {"role": "user", "content": [{**failed, "tool_use_id": "c1"}, {**failed, "tool_use_id": "c2"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Sorry."}]},
        {"role": "user", "content": [{"type": "text", "text": "Never mind"}]},
    ]
    roles = [message["role"] for message in openai_body(request, "gpt-5.2")[0]["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "user"]


def test_a_call_without_a_result_does_not_stop_the_chat(chat: Chat) -> None:
    done = chat([*call(), USES_TOOL], "Bye.", say=["Weather?", "Never mind"])
    assert done.messages[1]["parts"][1]["state"] == "input-available"
    unanswered = "There is no result: the tool was not run."
    assert done.histories[1] == (
        Message.user("Weather?"),
        Message.assistant([ToolCallBlock("c1", "get_weather", {"city": "Bern"})]),
        Message.tool_result("c1", unanswered, is_error=True),
        Message.user("Never mind"),
    )


@pytest.mark.parametrize(("package", "raw"), [("ai", "rawInput"), ("ai-7", "input")])
def test_a_malformed_call_is_shown_as_an_error_of_that_call(chat: Chat, package: str, raw: str) -> None:
    turn = [
        ToolCallStarted("c1", "get_weather"),
        ToolCallArgsDelta("c1", '{"city": '),
        ToolCallMalformed("c1", "get_weather", '{"city": ', "it ends early"),
        TurnFinished(FinishReason.MAX_TOKENS),
    ]
    done = chat(turn, "Sorry.", say=["Weather?"], package=package)
    part = done.parts[1]
    assert (part["state"], part[raw], part["errorText"]) == ("output-error", '{"city": ', "it ends early")
    assert done.histories[1] == (
        Message.user("Weather?"),
        Message.user("The call of get_weather could not be read: it ends early"),
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_an_error_during_the_stream_is_an_error_of_the_chat_and_the_text_stays(chat: Chat, package: str) -> None:
    done = chat([TextDelta("Half an ans"), OverloadedError("secret words")], say=["Hi"], package=package)
    assert (done.status, done.error, done.parts) == ("error", BUSY, [STEP, text("Half an ans")])
    assert done.ends == [{"isAbort": False, "isError": True, "isDisconnect": False}]


def test_an_error_before_the_stream_is_an_error_of_the_chat(chat: Chat) -> None:
    done = chat(OverloadedError("secret words"), say=["Hi"])
    assert (done.status, done.error, done.messages[1:]) == ("error", BUSY, [])


def test_a_wrong_post_is_an_error_of_the_chat(chat: Chat) -> None:
    done = chat(say=[[{"type": "file", "mediaType": "video/mp4", "url": "https://a.ch/"}]])
    expected = 'must be the type of an image, a sound or a document, got "video/mp4"'
    assert (done.status, done.error) == ("error", f"messages[0].parts[0].mediaType {expected}")


def test_a_stream_cancelled_by_the_server_is_not_an_error(chat: Chat) -> None:
    done = chat([TextDelta("Half an ans"), StreamCancelledError("enough")], say=["Hi"])
    assert (done.status, done.error, done.parts) == ("ready", None, [STEP, text("Half an ans")])


def test_the_chat_continues_after_the_client_has_stopped_an_answer(chat: Chat) -> None:
    never = threading.Event()
    turn: Script = [TextDelta("Half an ans"), WaitFor(never, RUN_S), TextDelta("wer"), END]
    done = chat(turn, "Yes?", say=["Hi", "Stop"], stopAt="Half")
    assert [(end["isAbort"], end["isError"]) for end in done.ends] == [(True, False), (False, False)]
    assert done.histories[1] == (Message.user("Hi"), Message.assistant("Half an ans"), Message.user("Stop"))
    assert (done.status, done.parts) == ("ready", [STEP, text("Yes?")])


def test_a_file_of_the_user_reaches_the_model(chat: Chat) -> None:
    file = {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,aGk=", "filename": "a.png"}
    done = chat("A cat.", say=[[{"type": "text", "text": "What is this?"}, file]])
    image = ImageBlock(Base64Source("image/png", "aGk="))
    assert done.histories == [(Message.user([TextBlock("What is this?"), image]),)]


REFUND: Script = [
    ToolCallStarted("c1", "refund"),
    ToolCallFinished("c1", "refund", {"order": 17, "euros": 20.0}),
    TurnFinished(FinishReason.TOOL_USE),
]


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize(
    ("answer", "read"), [(True, "refunded 20.0 euros for order 17"), ("Not this one.", "Not this one.")]
)
def test_a_call_waits_for_the_user_and_the_view_goes_on(
    chat: Chat, package: str, answer: bool | str, read: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # its database is there
    done = chat(
        REFUND, [TextDelta("Well."), END], say=["Hi"], app=approvals_app, package=package, approve={"refund": answer}
    )
    assert (done.status, done.error) == ("ready", None)
    (call,) = [part for part in done.parts if part["type"] == "tool-refund"]
    assert call["state"] == ("output-available" if answer is True else "output-error")
    assert read in (call.get("output"), call.get("errorText"))
    assert done.parts[-1]["text"] == "Well."
    assert [block.blocks for block in done.histories[1][-1].blocks if isinstance(block, ToolResultBlock)] == [
        (TextBlock(read),)
    ]
