"""``--attach``, run as its users run it."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Any

import pytest

from completion.testing import ProviderServer, Reply
from tests.cli.test_cli import COMMAND, delta, end, environment, run

PNG = b"\x89PNG\r\n\x1a\n and more"
WAV = b"RIFF\x00\x00\x00\x00WAVE and more"
PDF = b"%PDF-1.7 and more"


@pytest.fixture
def answering(server: ProviderServer) -> ProviderServer:
    server.always(Reply(delta(content="Yes."), end()))
    return server


def parts(server: ProviderServer) -> list[dict[str, Any]]:
    """The parts of the user's message in the last request."""
    content: list[dict[str, Any]] = server.requests[-1].json()["messages"][-1]["content"]
    return content


def data_uri(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def file(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


def test_the_first_bytes_of_a_file_say_what_it_is(answering: ProviderServer, tmp_path: Path) -> None:
    image = file(tmp_path, "image.txt", PNG)
    sound = file(tmp_path, "sound", WAV)
    document = file(tmp_path, "paper.dat", PDF)
    done = run(answering, "-a", image, "--attach", sound, "-a", document, "What are these?")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Yes.\n", "")
    assert parts(answering) == [
        {"type": "image_url", "image_url": {"url": data_uri("image/png", PNG)}},
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(WAV).decode(), "format": "wav"}},
        {"type": "file", "file": {"filename": "paper.dat", "file_data": data_uri("application/pdf", PDF)}},
        {"type": "text", "text": "What are these?"},
    ]


def test_a_text_file_is_text_with_its_name(answering: ProviderServer, tmp_path: Path) -> None:
    run(answering, "-a", file(tmp_path, "notes.md", "\ufeffGrüße\n".encode()), "Translate")
    content = answering.requests[-1].json()["messages"][-1]["content"]
    assert content == "notes.md:\n\nGrüße\n\n\nTranslate"


def test_stdin_can_be_attached(answering: ProviderServer) -> None:
    command = [*COMMAND, "-a", "-", "What is it?"]
    done = subprocess.run(command, env=environment(answering), input=PNG, capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")
    assert [part["type"] for part in parts(answering)] == ["image_url", "text"]


def test_an_attachment_needs_no_prompt(answering: ProviderServer, tmp_path: Path) -> None:
    assert run(answering, "-a", file(tmp_path, "a.png", PNG)).returncode == 0
    assert [part["type"] for part in parts(answering)] == ["image_url"]


def test_the_provider_fetches_an_image_from_its_url(answering: ProviderServer) -> None:
    url = "https://example.com/cat.jpg?size=2"
    assert run(answering, "-a", url, "What is it?").returncode == 0
    assert parts(answering)[0] == {"type": "image_url", "image_url": {"url": url}}


def test_what_the_provider_does_not_fetch_is_downloaded_without_the_key(answering: ProviderServer) -> None:
    with ProviderServer() as files:
        files.reply(
            Reply(status=302, headers={"Location": "/moved.txt"}),
            Reply("Grüße".encode()),
            Reply(PNG),
            Reply(PDF),  # fetched last, once it is known which model is asked
        )
        urls = [f"{files.url}/{name}" for name in ("paper.pdf", "notes.txt", "image?id=7")]
        done = run(answering, *[word for url in urls for word in ("-a", url)], "What are these?")
        assert (done.returncode, done.stderr) == (0, "")
        assert not any("authorization" in request.headers for request in files.requests)
    shown = {part["type"]: part for part in parts(answering)}
    assert shown["file"]["file"]["file_data"] == data_uri("application/pdf", PDF)
    assert shown["image_url"]["image_url"]["url"] == data_uri("image/png", PNG)
    assert {"type": "text", "text": "notes.txt:\n\nGrüße"} in parts(answering)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(status=404), "the server answered 404"),
        (Reply(status=302, headers={"Location": "file:///etc/passwd"}), "No connection adapters"),
    ],
    ids=["not found", "redirect to a file"],
)
def test_a_url_that_cannot_be_downloaded_is_an_error_of_the_network(
    answering: ProviderServer, reply: Reply, message: str
) -> None:
    with ProviderServer() as files:
        files.reply(reply)
        done = run(answering, "-a", f"{files.url}/notes.txt", "What is it?")
    assert (done.returncode, len(answering.requests)) == (5, 0)
    assert message in done.stderr


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("missing", None, "completion: error: --attach: {name} cannot be read: No such file or directory"),
        ("empty.txt", b"", "empty.txt is empty"),
        ("a.zip", b"PK\x03\x04\0\0", "(its type is application/zip)"),
        ("utf16.txt", "text".encode("utf-16"), "not an image, a PDF, audio, or text in UTF-8"),
        ("not-a.png", b"\0\1\2", "not an image, a PDF, audio, or text in UTF-8"),
    ],
)
def test_what_cannot_be_attached_exits_with_2(
    answering: ProviderServer, tmp_path: Path, name: str, data: bytes | None, message: str
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    done = run(answering, "-a", str(tmp_path / name), "What is it?")
    message = message.format(name=tmp_path / name)
    assert (done.returncode, done.stdout, len(answering.requests)) == (2, "", 0)
    assert message in done.stderr


def test_binary_stdin_names_the_option_to_use(answering: ProviderServer) -> None:
    done = run(answering, "What is it?", stdin="\0")
    assert (done.returncode, len(answering.requests)) == (2, 0)
    assert "use --attach -" in done.stderr


def test_what_a_model_cannot_read_exits_with_3(answering: ProviderServer, tmp_path: Path) -> None:
    done = run(answering, "-m", "local", "-a", file(tmp_path, "a.png", PNG), "What is it?")
    assert done.returncode == 3
    assert "the embedded model reads text only" in done.stderr


def test_an_empty_stdin_cannot_be_attached(answering: ProviderServer) -> None:
    done = run(answering, "-a", "-", "What is it?", stdin="")
    assert (done.returncode, len(answering.requests)) == (2, 0)
    assert "--attach: stdin is empty" in done.stderr
