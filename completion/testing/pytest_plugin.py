"""The pytest fixture ``completion_recorded``: a Session whose recording is named after the test."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from completion.testing.recording import recorded
from completion.transport import Session

_MODES: Final = ("auto", "record", "replay")
_MAX_NAME: Final = 120
_PASSED: Final = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("completion").addoption(
        "--completion-recorded",
        choices=_MODES,
        default="auto",
        help="mode of the fixture completion_recorded: record, replay, or auto (replay if recorded, else record)",
    )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, None]:
    outcome = yield
    if call.when == "call":
        item.stash[_PASSED] = outcome.get_result().passed


class _TestFailedError(Exception):
    """Raised inside the block of a recording, so that no file is written."""


@pytest.fixture
def completion_recorded(request: pytest.FixtureRequest) -> Iterator[Session]:
    """A Session for ``session=`` of a model. It records the first run in which the test passes, and replays it later.

    The recording is ``recordings/<test file>/<test name>.jsonl`` in the folder of the test file.
    """
    item = request.node
    mode = request.config.getoption("--completion-recorded")
    with suppress(_TestFailedError), recorded(_path(item), mode) as session:
        yield session
        if not item.stash.get(_PASSED, False):
            raise _TestFailedError


def _path(item: pytest.Item) -> Path:
    # With the class, because two classes may have tests with the same name.
    name = item.nodeid.partition("::")[2].replace("::", ".")
    plain = re.sub(r"[^\w.=+-]+", "_", name).strip("_")[:_MAX_NAME]
    if plain != name:  # two parameters may differ only in the removed characters
        plain += f"-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:6]}"
    return item.path.parent / "recordings" / item.path.stem / f"{plain}.jsonl"
