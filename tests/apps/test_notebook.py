"""``show()`` in real Jupyter kernels, through the messages that a notebook's page sends and receives."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from completion import (
    ChatRequest,
    FinishReason,
    ProviderBlockFinished,
    ReasoningDelta,
    ReasoningFinished,
    StreamChunk,
    TextDelta,
    TruncatedStreamError,
    TurnFinished,
)
from completion.notebook import show
from completion.testing import Cut, Pause, ProviderServer, Reply, ScriptedModel, Stall, WaitFor
from tests.loopback import END, KEY, PATIENCE_S, text

pytest.importorskip("ipykernel")
jupyter_client = pytest.importorskip("jupyter_client")
nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"
BROKE_OFF = "*The answer broke off here.*"


@pytest.fixture(autouse=True)
def empty_jupyter_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel reads or writes the files of the person who runs the tests."""
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


class Cell:
    """An executed cell, and what it has put on the page so far.

    ``shown`` are the texts of its output, in order: the first one displays it, the others update it.
    """

    def __init__(self, client: Any, code: str) -> None:
        self.shown: list[str] = []
        self.plain: list[str] = []
        self.mime_types: set[str] = set()
        self.display_ids: list[str] = []
        self.displays = 0
        self.printed = ""
        self.error: str | None = None
        self.is_over = False
        self._client = client
        self._id = client.execute(code)

    def until(self, condition: Callable[[Cell], bool]) -> Cell:
        """Read the kernel's messages until the condition is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition(self):
            assert not self.is_over, f"the cell ended with {self.shown}, {self.printed!r}, {self.error}"
            message = self._client.get_iopub_msg(timeout=max(0.0, deadline - time.monotonic()))
            if message["parent_header"].get("msg_id") == self._id:
                self._take(message["msg_type"], message["content"])
        return self

    def until_over(self) -> Cell:
        return self.until(lambda cell: cell.is_over)

    def _take(self, kind: str, content: dict[str, Any]) -> None:
        if kind in ("display_data", "update_display_data"):
            self.shown.append(content["data"]["text/markdown"])
            self.plain.append(content["data"].get("text/plain", ""))
            self.mime_types |= set(content["data"])
            self.display_ids.append(content["transient"]["display_id"])
            self.displays += kind == "display_data"
        elif kind == "stream":
            self.printed += content["text"]
        elif kind == "error":
            self.error = content["ename"]
        elif kind == "status":
            self.is_over = content["execution_state"] == "idle"


class Kernel:
    """A Python kernel in its own process. In it, ``model`` calls the server."""

    def __init__(self, manager: Any, server: ProviderServer) -> None:
        self._manager = manager
        self._client = manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)
        self.run(
            "from completion import *\n"
            "from completion.notebook import show\n"
            f"model = OpenAIModel('m', base_url={server.url!r}, api_key={KEY!r}, timeout=Timeout(read={PATIENCE_S}))"
        ).until_over()

    def run(self, code: str) -> Cell:
        return Cell(self._client, code)

    def interrupt(self) -> None:
        """Like the notebook's stop button (the square)."""
        self._manager.interrupt_kernel()

    def stop(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()


@pytest.fixture
def kernel(server: ProviderServer) -> Iterator[Kernel]:
    manager = jupyter_client.KernelManager(kernel_name="python3")
    manager.start_kernel()
    kernel = Kernel(manager, server)
    yield kernel
    kernel.stop()


SHOW = "turn = show(model.chat_stream(ChatRequest('Hi')))"


def test_the_text_so_far_is_on_the_page_while_the_model_is_silent(kernel: Kernel, server: ProviderServer) -> None:
    more = threading.Event()
    server.reply(Reply(text("Hel"), text("lo, "), WaitFor(more), text("world"), END))
    cell = kernel.run(SHOW).until(lambda cell: cell.shown[-1:] == ["Hello, "])
    more.set()
    assert cell.until_over().shown[-1] == "Hello, world"


def test_an_answer_updates_one_output_on_the_page(kernel: Kernel, server: ProviderServer) -> None:
    more = threading.Event()
    server.reply(Reply(text("one"), WaitFor(more), text(" two"), END))
    cell = kernel.run(SHOW).until(lambda cell: cell.shown == ["one"])
    more.set()
    assert cell.until_over().shown == ["one", "one two"]
    assert (cell.displays, len(set(cell.display_ids))) == (1, 1)
    assert cell.mime_types == {"text/markdown", "text/plain"}


def test_a_fast_answer_is_drawn_ten_times_a_second_and_completely_at_the_end(
    kernel: Kernel, server: ProviderServer
) -> None:
    words = [f"word{number} " for number in range(2000)]
    pieces = [piece for word in words for piece in (text(word), Pause(0.0005))]
    server.reply(Reply(*pieces, END))
    timed = f"import time\nbegan = time.monotonic()\n{SHOW}\nprint(time.monotonic() - began)"
    cell = kernel.run(timed).until_over()
    assert cell.shown[-1] == "".join(words)
    assert 3 < len(cell.shown) <= float(cell.printed) / 0.1 + 2


def test_a_growing_value_is_shown_as_json_and_returned(kernel: Kernel, server: ProviderServer) -> None:
    more = threading.Event()
    server.reply(Reply(text('{"value": ["Os'), WaitFor(more), text('lo"]}'), END))
    cell = kernel.run("cities = show(structured(model, 'Hi', list[str]))\nprint(cities)")
    cell.until(lambda cell: cell.shown == ['```json\n[\n  "Os"\n]\n```'])
    more.set()
    assert cell.until_over().shown[-1] == '```json\n[\n  "Oslo"\n]\n```'
    assert cell.printed == "['Oslo']\n"


def test_show_returns_the_turn(kernel: Kernel, server: ProviderServer) -> None:
    server.reply(Reply(text("Hel"), Pause(0.3), text("lo"), END))
    cell = kernel.run(f"{SHOW}\nprint(turn.message, turn.reason)").until_over()
    assert cell.printed == "Message(role='assistant', blocks=(TextBlock(text='Hello'),)) end_turn\n"


def test_interrupting_the_kernel_closes_the_connection_at_once(kernel: Kernel, server: ProviderServer) -> None:
    server.reply(Reply(text("Once upon"), Stall()))
    cell = kernel.run(SHOW).until(lambda cell: cell.shown == ["Once upon"])
    kernel.interrupt()
    assert server.wait_hung_up(1)
    assert cell.until_over().error == "KeyboardInterrupt"


def test_text_before_an_interrupt_stays_and_the_kernel_keeps_working(kernel: Kernel, server: ProviderServer) -> None:
    server.reply(Reply(text("Once upon"), Stall()), Reply(text("Hello"), END))
    cell = kernel.run(SHOW).until(lambda cell: cell.shown == ["Once upon"])
    kernel.interrupt()
    assert cell.until_over().shown[-1] == f"Once upon\n\n{BROKE_OFF}"
    assert kernel.run(SHOW).until_over().shown[-1] == "Hello"


def test_a_generator_can_be_interrupted_while_the_model_is_silent(kernel: Kernel, server: ProviderServer) -> None:
    server.reply(Reply(text("Once upon"), Stall()))
    code = "def shouted(chunks):\n    for chunk in chunks:\n        yield TextDelta(chunk.delta.upper())\n"
    cell = kernel.run(code + "show(shouted(model.chat_stream(ChatRequest('Hi'))))")
    cell.until(lambda cell: cell.shown == ["ONCE UPON"])
    kernel.interrupt()
    assert server.wait_hung_up(1)
    assert cell.until_over().error == "KeyboardInterrupt"


@pytest.mark.parametrize(("cut", "error"), [([Cut()], "TransportError"), ([], "TruncatedStreamError")])
def test_an_answer_that_breaks_off_says_so_and_raises(
    cut: list[Cut], error: str, kernel: Kernel, server: ProviderServer
) -> None:
    server.reply(Reply(text("```py\nhalf"), *cut))
    kept = f"try:\n    {SHOW}\nexcept CompletionError as error:\n    print(error.partial.text)\n    raise"
    cell = kernel.run(kept).until_over()
    assert cell.shown[-1] == f"```py\nhalf\n```\n\n{BROKE_OFF}"
    assert (cell.printed, cell.error) == ("```py\nhalf\n", error)


def test_an_async_stream_runs_in_the_loop_of_the_kernel(kernel: Kernel, server: ProviderServer) -> None:
    server.reply(Reply(text("Hel"), text("lo"), END))
    cell = kernel.run(
        "async with AsyncModel(model).chat_stream(ChatRequest('Hi')) as stream:\n"
        "    async for chunk in stream:\n"
        "        print(chunk.type)"
    )
    assert cell.until_over().printed == "text_delta\ntext_delta\nturn_finished\n"


def test_an_answer_cannot_run_scripts_on_the_page_or_control_a_console(kernel: Kernel, server: ProviderServer) -> None:
    server.reply(Reply(text("<script>x</script>\x1b[2J\u202e"), END))
    cell = kernel.run(SHOW).until_over()
    assert "<script" not in cell.shown[-1]
    assert cell.plain[-1] == "<script>x</script>[2J"


def test_a_turn_is_markdown_on_the_page(kernel: Kernel) -> None:
    cell = kernel.run("handle = display(Turn(Message.assistant('*Hi*'), FinishReason.END_TURN), display_id=True)")
    assert cell.until_over().shown == ["*Hi*"]


def test_the_notebook_runs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = {cell["id"]: cell["outputs"] for cell in notebook.cells if cell["cell_type"] == "code"}
    for name in ("show", "first", "second", "stop"):
        (output,) = outputs[name]
        assert output["output_type"] == "display_data"
        assert output["data"]["text/markdown"].strip()
    assert outputs["repr"][0]["data"]["text/markdown"] == outputs["show"][0]["data"]["text/markdown"]
    assert outputs["stop"][0]["data"]["text/markdown"].endswith(BROKE_OFF)
    assert "words, reason: None" in outputs["partial"][0]["text"]


def test_the_notebook_is_stored_without_outputs_and_machine_details() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    nbformat.validate(notebook)
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [(cell["outputs"], cell["execution_count"], cell["metadata"]) for cell in code] == [([], None, {})] * len(
        code
    )


# Without a page: in a terminal


THOUGHTFUL: list[StreamChunk] = [
    ReasoningDelta("Hm.\n"),
    ReasoningDelta("Well."),
    ReasoningFinished("sig"),
    TextDelta("Hel"),
    TextDelta("lo\x1b[31m"),
    TurnFinished(FinishReason.END_TURN),
]


def test_without_a_shell_the_text_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [step for chunk in THOUGHTFUL for step in (chunk, Pause(0.12))][:-1]
    turn = show(ScriptedModel(steps).chat_stream(ChatRequest("Hi")))
    assert capsys.readouterr().out == "> *Reasoning*\n>\n> Hm.\n> Well.\n\nHello[31m\n"
    assert turn.text == "Hello\x1b[31m"


def test_in_a_terminal_the_text_is_printed_once() -> None:
    code = (
        "from completion import *\n"
        "from completion.notebook import show\n"
        "from completion.testing import ScriptedModel, Pause\n"
        "steps = [TextDelta('Hel'), Pause(0.3), TextDelta('lo'), TurnFinished(FinishReason.END_TURN)]\n"
        "turn = show(ScriptedModel(steps).chat_stream(ChatRequest('Hi')))\n"
    )
    ipython = [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "-c", code]
    run = subprocess.run(ipython, capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("Hello\n", "")


def test_an_output_that_cannot_encode_a_character_shows_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    steps: list[StreamChunk | Exception | Pause | WaitFor] = [
        TextDelta("a <sc"),
        Pause(0.2),
        TextDelta("ript>é\u202e"),
        TurnFinished(FinishReason.END_TURN),
    ]
    show(ScriptedModel(steps).chat_stream(ChatRequest("Hi")))
    out.seek(0)
    assert out.read() == "a <script>?\n"


class Interrupted:
    """Chunks with a ``close()``. After the first chunk, Ctrl-C is pressed."""

    def __init__(self) -> None:
        self.is_closed = False
        self._chunks = iter([TextDelta("Hi")])

    def __iter__(self) -> Iterator[StreamChunk]:
        return self

    def __next__(self) -> StreamChunk:
        for chunk in self._chunks:
            return chunk
        raise KeyboardInterrupt

    def close(self) -> None:
        self.is_closed = True


def test_any_iterator_with_a_close_method_is_closed(capsys: pytest.CaptureFixture[str]) -> None:
    chunks = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        show(chunks)
    assert chunks.is_closed
    assert capsys.readouterr().out == f"Hi\n\n{BROKE_OFF}\n"


def test_chunks_without_an_end_of_turn_raise_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TruncatedStreamError) as caught:
        show([TextDelta("Hi")])
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hi"
    assert capsys.readouterr().out == f"Hi\n\n{BROKE_OFF}\n"


def test_a_terminal_prints_a_label_for_an_image(capsys: pytest.CaptureFixture[str]) -> None:
    block = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
    turn = show([TextDelta("Here:"), ProviderBlockFinished("gemini", block), TurnFinished(FinishReason.END_TURN)])
    assert capsys.readouterr().out == "Here:\n\n[image/png]\n"
    assert len(turn.images) == 1
