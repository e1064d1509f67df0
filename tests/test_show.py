"""What ``show()`` refuses and requires. ``tests/apps/test_notebook.py`` tests the rest in real kernels."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from completion import (
    ConfigurationError,
    StreamChunk,
    TextDelta,
)
from completion.notebook import show


class Opening:
    """Looks like a stream of AsyncModel that is not open yet."""

    def __await__(self) -> Iterator[None]:
        yield


async def asynchronous() -> AsyncIterator[StreamChunk]:
    yield TextDelta("Hi")


@pytest.mark.parametrize("stream", [asynchronous(), Opening()])
def test_show_refuses_an_asynchronous_stream(stream: object) -> None:
    with pytest.raises(TypeError, match=r"blocking stream, got (async_generator|Opening); .* without AsyncModel"):
        show(stream)  # type: ignore[call-overload]


def test_without_ipython_the_error_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.setitem(sys.modules, "IPython.core.displaypub", None)
    with pytest.raises(ConfigurationError, match=r"show\(\) needs IPython .* -m pip install ipykernel"):
        show(iter([]))


def test_without_ipython_the_stream_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.setitem(sys.modules, "IPython.core.displaypub", None)
    closed = []

    def chunks() -> Iterator[StreamChunk]:
        try:
            yield TextDelta("Hi")
            yield TextDelta("Ho")
        finally:
            closed.append(True)

    stream = chunks()
    next(stream)
    with pytest.raises(ConfigurationError):
        show(stream)
    assert closed == [True]
