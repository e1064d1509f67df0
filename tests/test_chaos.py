"""Streams with random faults and readers that leave at random keep the contract, and leave nothing open."""

from __future__ import annotations

import os
import random
import time

from tests.chaos import STREAMS_OF_A_ROUND, Chaos, what_is_open, what_stays_open
from tests.wire_pieces import IS_SAMPLED


def test_random_faults_and_cancels_break_no_promise_and_leave_nothing_open() -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(10**9))
    print(f"CHAOS_SEED={seed}")  # pytest shows it if the test fails
    before = what_is_open()
    with Chaos(seed) as chaos:
        chaos.round(range(STREAMS_OF_A_ROUND // (4 if IS_SAMPLED else 1)), until=time.monotonic() + 6)
    assert chaos.failures == []
    # A thread may have been started before, and have ended since.
    descriptors, threads = what_stays_open(before)
    assert (descriptors > before[0], len(threads) > len(before[1])) == (False, False), (before, descriptors, threads)
