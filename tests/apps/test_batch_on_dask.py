"""completion.batch on a Dask cluster of worker processes, one of which is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

import completion
from completion import ChatRequest, FinishReason, TextDelta, TurnFinished

distributed = pytest.importorskip("distributed")

# Dask's own warnings, on the Python of the day.
pytestmark = pytest.mark.filterwarnings("ignore")


class Slow:
    """Answers with the id of the process that ran it."""

    name, model = "slow", "slow-1"

    def chat_stream(self, req: ChatRequest) -> Iterator[TextDelta | TurnFinished]:
        import time

        time.sleep(0.05)
        yield TextDelta(str(os.getpid()))
        yield TurnFinished(FinishReason.END_TURN)


def test_a_killed_worker_loses_no_request_and_doubles_none() -> None:
    options = {"n_workers": 3, "threads_per_worker": 2, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster, timeout=30) as client:
        executor = client.get_executor()
        results = []
        for result in completion.batch(Slow(), (str(i) for i in range(90)), 12, executor):
            results.append(result)
            if len(results) == 20:
                os.kill(int(str(result.turn)), signal.SIGKILL)
        assert sorted(result.index for result in results) == list(range(90))
        assert [result.error for result in results if result.error is not None] == []
        assert client.submit(int).result(timeout=30) == 0
