"""Reads invoices (PDF or text) and writes a table: a row for each file, as soon as it is known.

    python extract.py FOLDER -o invoices.csv [-m family:model]

Started again, it reads only the files that the table does not have yet. A file that cannot be read is named at the end,
and the exit status is 1.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import completion
from completion import (
    ChatModel,
    ChatRequest,
    CompletionError,
    DocumentBlock,
    Message,
    RetryingModel,
    TextBlock,
    structured,
)

SUFFIXES = (".pdf", ".txt", ".md")
TASK = "Read the invoice. Write dates as YYYY-MM-DD. Write an empty text for what it does not say."


@dataclass
class Invoice:
    """What is read from a file. A field more is a column more."""

    number: str
    date: str
    seller: str
    total: float
    currency: str


COLUMNS = ["file", *(field.name for field in fields(Invoice))]


def read(model: ChatModel, path: Path) -> Invoice:
    """What the model finds in the file. An answer that does not fit is asked for again once."""
    given = DocumentBlock.from_path(path) if path.suffix == ".pdf" else TextBlock(path.read_text(encoding="utf-8"))
    request = ChatRequest([Message.user([TextBlock(TASK), given])], max_tokens=300)
    return structured(model, request, Invoice, repairs=1).collect()


def rows(model: ChatModel, paths: list[Path], workers: int) -> Iterator[tuple[Path, Invoice | Exception]]:
    """Each file and its invoice, or the error, in the order in which they are ready."""
    with ThreadPoolExecutor(workers) as pool:
        jobs = {pool.submit(read, model, path): path for path in paths}
        for job in as_completed(jobs):
            error = job.exception()
            if error is None:
                yield jobs[job], job.result()
            elif isinstance(error, CompletionError | OSError | ValueError):
                yield jobs[job], error
            else:
                raise error


def known_files(table: Path) -> set[str]:
    if not table.exists():
        return set()
    with table.open(newline="", encoding="utf-8") as file:
        return {row["file"] for row in csv.DictReader(file)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Invoices to a table.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("invoices.csv"))
    parser.add_argument("-m", "--model", default="local")
    parser.add_argument("--workers", type=int, default=4, help="how many files to read at the same time")
    given = parser.parse_args()

    model = RetryingModel(completion.model(given.model))
    known = known_files(given.output)
    found = sorted(path for path in given.folder.iterdir() if path.suffix.lower() in SUFFIXES)
    paths = [path for path in found if path.name not in known]
    failed: list[str] = []
    with given.output.open("a", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        if not known:
            table.writeheader()
        for count, (path, result) in enumerate(rows(model, paths, given.workers), 1):
            if isinstance(result, Invoice):
                table.writerow({"file": path.name, **asdict(result)})
                file.flush()
            else:
                failed.append(f"{path.name}: {result}")
            print(f"\r{count} of {len(paths)} read, {len(failed)} failed ", end="", file=sys.stderr)
    print(file=sys.stderr)
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
