"""Text of others does not control the terminal: the functions, and the command against a hostile server."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import unicodedata

import pytest

from completion import CompletionError
from completion.terminal import harmless, harmless_json, one_line, showable
from completion.testing import ProviderServer, Reply
from tests.cli.test_cli import Terminal, delta, end, environment, run
from tests.loopback import HI, model_of

pytestmark = pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")

STEERING = "\x1b]0;title\x07\x1b[2J\x9b31m\u202egnp.exe\u2066\u200b\ufeff\U000e0041\x00\x08\r"
HARMLESS = "]0;title[2J31mgnp.exe"

# Joiners, which words and emoji need, and number signs, which are visible.
KEPT = {0x200C, 0x200D, *range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}


def test_no_control_code_and_no_format_control_is_left() -> None:
    codes = {code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Cc", "Cf")}
    left = {code for code in codes if harmless(chr(code))}
    assert left - KEPT == {ord("\t"), ord("\n")}


def test_visible_characters_are_kept() -> None:
    text = "a\tb\nGrüße, 你好, नमस्\u200dते, می\u200cخو, 👩\u200d💻, e\u0301"
    assert harmless(text) == text


@pytest.mark.parametrize("size", [1, 2, 3])
def test_harmless_works_on_pieces(size: int) -> None:
    pieces = [STEERING[at : at + size] for at in range(0, len(STEERING), size)]
    assert "".join(map(harmless, pieces)) == harmless(STEERING) == HARMLESS


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\n  \n", "\t"])
def test_one_line_replaces_line_breaks(line_break: str) -> None:
    assert one_line(f"a{line_break}b") == "a b"
    assert one_line(f"  a  {STEERING}") == f"  a  {HARMLESS} "


def test_harmless_json_is_the_same_document() -> None:
    line = json.dumps({"delta": f"Grüße{STEERING}"}, ensure_ascii=False)
    shown = harmless_json(line)
    assert harmless(shown) == shown
    assert json.loads(shown) == json.loads(line)
    assert "Grüße" in shown


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "a? ??"), ("latin-1", "aé ??"), ("utf-8", "aé 你?"), (None, "aé 你?")]
)
def test_showable_replaces_what_the_encoding_lacks(encoding: str | None, shown: str) -> None:
    out = io.StringIO() if encoding is None else io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    out.write(showable("aé 你\ud83d", out))
    assert showable("aé 你\ud83d", out) == shown


# --- the command -------------------------------------------------------------------------------------------------


def raw(head: str, body: bytes = b"") -> Reply:
    """A reply that is sent unchanged, headers included."""
    return Reply(before_headers=[head.replace("\n", "\r\n").encode("latin-1") + body])


ESCAPE = "\x1b]0;title\x07\x1b[2J\x9b31m"
ECHO = {"error": {"message": f"no {STEERING} \u2028 more", "code": STEERING, "type": STEERING}}


every_hostile_reply = pytest.mark.parametrize(
    "reply",
    [
        Reply.json(ECHO, status=400),
        Reply.json(ECHO, status=429),
        Reply(event_of := b"data: " + json.dumps(ECHO).encode() + b"\n\n"),
        Reply(delta(content="Hi"), event_of),
        raw(f"HTTP/1.1 500 Oh{ESCAPE}\nx-request-id: {ESCAPE}\nContent-Length: 0\n\n"),
        raw(f"HTTP/1.1 302 Found\nLocation: http://x/{ESCAPE}\nContent-Length: 0\n\n"),
        raw(f"HTTP/1.1 200 OK\nContent-Type: text/{ESCAPE}\nContent-Length: 2\n\n", b"Hi"),
        raw(f"{ESCAPE} is not HTTP\n\n"),
        raw(f"HTTP/1.1 200 OK\nContent-Length: 0\nno colon {ESCAPE}\nX: y\n\n"),
        raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", ESCAPE.encode() + b"\r\n"),
        Reply.text(ESCAPE, content_type="text/html", status=502),
        Reply(f"data: {ESCAPE}\n\n"),
    ],
    ids=[
        "400", "429", "error event", "late error event", "request id", "redirect", "content type", "no HTTP", "header",
        "chunk size", "502", "no JSON",
    ],
)  # fmt: skip


@every_hostile_reply
def test_an_error_that_a_program_prints_does_not_steer_its_terminal(server: ProviderServer, reply: Reply) -> None:
    server.reply(reply)
    with pytest.raises(CompletionError) as caught:
        model_of(server).chat_stream(HI).collect()
    assert harmless(str(caught.value)) == str(caught.value)


@every_hostile_reply
def test_nothing_that_a_server_says_steers_the_terminal_through_an_error(server: ProviderServer, reply: Reply) -> None:
    server.reply(reply)
    done = run(server, "Hi")
    assert done.returncode in (3, 4, 5, 6)
    assert done.stderr.startswith("completion: ")
    assert len(done.stderr.splitlines()) == 1
    assert harmless(done.stderr) == done.stderr


@pytest.mark.parametrize("arguments", [["Hi"], ["--json", "Hi"]], ids=["text", "json"])
def test_an_answer_that_is_split_in_an_escape_sequence_does_not_steer_the_terminal(
    server: ProviderServer, arguments: list[str]
) -> None:
    server.reply(Reply(*(delta(content=letter) for letter in STEERING), delta(reasoning=STEERING), end()))
    terminal = Terminal(server, *arguments, NO_COLOR="1")
    terminal.wait_for("\r\n" if arguments == ["Hi"] else "turn_finished")
    assert terminal.ended() == 0
    assert harmless(terminal.screen) == terminal.screen.replace("\r", "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("arguments", [["Hi"], ["--json", "Hi"]], ids=["text", "json"])
def test_the_command_prints_characters_that_the_encoding_lacks(
    server: ProviderServer, arguments: list[str], encoding: str
) -> None:
    half = b'data: {"choices": [{"index": 0, "delta": {"content": "\\ud83d"}}]}\n\n'
    server.reply(Reply(half, half, delta(content=" 你."), end()))
    done = subprocess.run(
        [sys.executable, "-m", "completion", *arguments],
        env=environment(server, PYTHONIOENCODING=f"{encoding}:strict"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert "." in done.stdout.decode(encoding)


@pytest.mark.parametrize(
    "arguments",
    [
        ["trace", "no\x1b[2J\u202e.jsonl"],
        [f"--{STEERING[1:]}"],
        ["--tools", "no\x1b[2J:f", "Hi"],
        ["-m", "\x1b[2J", "Hi"],
    ],
    ids=["file", "option", "tools", "model"],
)
def test_error_messages_repeat_arguments_without_control_codes(server: ProviderServer, arguments: list[str]) -> None:
    done = run(server, *[word.replace("\0", "") for word in arguments])
    assert done.returncode in (2, 3)
    assert harmless(done.stderr) == done.stderr


def test_the_name_of_a_model_does_not_steer_the_terminal(server: ProviderServer) -> None:
    terminal = Terminal(server, "chat", COMPLETION_MODEL="openai:a\x1b[2Jb")
    terminal.wait_for("> ")
    assert "openai:a[2Jb - Ctrl-C" in terminal.screen
    terminal.type("\x04")
    assert terminal.ended() == 0
