"""What a recording keeps of a stream: ``completion.testing.recorded`` beside vcrpy.

A loopback server sends 20 chunks, one every 50 ms. A reader of requests measures when the first piece arrives, and how
many pieces there are: from the server, while it is recorded, and when it is replayed. A second stream breaks after its
third chunk.

    pip install ".[bench]" && python benchmarks/recordings.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import requests
import vcr

from completion.testing import Pause, ProviderServer, Reply, Reset, event, recorded
from completion.testing.replies import Piece

EVERY_S = 0.05


def delta(text: str) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}}]})


STREAM: list[Piece] = [piece for word in range(20) for piece in (delta(f"word {word} "), Pause(EVERY_S))]
WHOLE = Reply(*STREAM, event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}), event("[DONE]"))
BROKEN = Reply(*STREAM[:6], Reset())

Recorder = Callable[[Path], AbstractContextManager[requests.Session]]


@contextmanager
def with_vcrpy(path: Path) -> Iterator[requests.Session]:
    with vcr.use_cassette(str(path)), requests.Session() as session:
        yield session


@contextmanager
def ours(path: Path) -> Iterator[requests.Session]:
    with recorded(path, speed=1.0) as session:
        yield session


def measure(url: str, session: requests.Session) -> str:
    """What a reader of ``requests`` sees. It knows nothing of this package, so each recorder has the same chance."""
    began = time.perf_counter()
    pieces: list[float] = []
    ending = "then the end"
    try:
        with session.post(url, data=b"{}", stream=True) as response:
            # extend() keeps what came before an error.
            pieces.extend(time.perf_counter() - began for piece in response.iter_content(None) if piece)
    except Exception as error:
        ending = f"then {type(error).__name__}"
    if not pieces:
        return f"no piece, {ending}"
    return f"first piece after {pieces[0] * 1000:4.0f} ms, {len(pieces):2} pieces, {ending}"


def run(name: str, recorder: Recorder, reply: Reply, folder: Path) -> None:
    with ProviderServer() as server:
        server.always(reply)
        for step in ("recorded", "replayed"):
            try:
                with recorder(folder / name) as session:
                    result = measure(server.url, session)
            except Exception as error:
                result = f"{type(error).__name__} at the end of the block"
            print(f"{name:22} {step}: {result}", flush=True)
        print(f"{'':22} requests that reached the server: {len(server.requests)}")


def main() -> None:
    recorders: dict[str, Any] = {"no recorder": lambda path: requests.Session(), "vcrpy": with_vcrpy, "recorded": ours}
    with tempfile.TemporaryDirectory() as folder:
        for what, reply in (("whole", WHOLE), ("broken", BROKEN)):
            for name, recorder in recorders.items():
                run(f"{name}, {what}", recorder, reply, Path(folder))


if __name__ == "__main__":
    main()
