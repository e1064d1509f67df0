"""The example that makes a table from a folder of files."""

from __future__ import annotations

import base64
import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from completion.testing import ProviderServer, Reply
from tests.loopback import END, text

PROGRAM = Path(__file__).parents[1] / "examples" / "extract_table" / "extract.py"
PDF = b"%PDF-1.4 of the invoice 7"


def invoice(number: str) -> dict[str, Any]:
    return {"number": number, "date": "2026-11-29", "seller": "Acme", "total": 12.5, "currency": "EUR"}


def extract(server: ProviderServer, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), str(folder), "-o", str(folder / "out.csv"), "-m", "openai-chat:m"]
    env = {**os.environ, "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "k", "PYTHONPATH": str(PROGRAM.parents[2])}
    return subprocess.run([*command, "--workers", "1"], capture_output=True, text=True, timeout=60, env=env)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "out.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("pydantic")
    (tmp_path / "1.txt").write_text("Invoice 1")
    (tmp_path / "2.pdf").write_bytes(PDF)
    (tmp_path / "3.txt").write_text("Invoice 3")
    (tmp_path / "photo.png").write_bytes(b"")
    return tmp_path


def test_each_file_is_a_row_and_a_failure_is_named(server: ProviderServer, folder: Path) -> None:
    answers = [Reply(text(json.dumps(invoice(number))), END) for number in ("1", "7")]
    server.reply(
        *answers, Reply.json({"error": {"message": "too long a file", "type": "invalid_request_error"}}, status=400)
    )
    done = extract(server, folder)
    assert done.returncode == 1
    assert [(row["file"], row["number"], row["total"]) for row in table(folder)] == [
        ("1.txt", "1", "12.5"),
        ("2.pdf", "7", "12.5"),
    ]
    assert re.search(r"^3\.txt: .*too long a file", done.stderr, re.MULTILINE)
    assert "3 of 3 read, 1 failed" in done.stderr
    sent = json.dumps(server.requests[1].json())
    assert base64.b64encode(PDF).decode() in sent


def test_started_again_it_reads_only_what_is_missing(server: ProviderServer, folder: Path) -> None:
    server.reply(*[Reply(text(json.dumps(invoice(number))), END) for number in ("1", "7", "3")])
    assert extract(server, folder).returncode == 0
    (folder / "4.txt").write_text("Invoice 4")
    server.reply(Reply(text(json.dumps(invoice("4"))), END))
    assert extract(server, folder).returncode == 0
    assert [row["number"] for row in table(folder)] == ["1", "7", "3", "4"]
    assert len(server.requests) == 4
