"""Answers with changes at random: whatever a provider sends, each wire keeps its promises."""

from __future__ import annotations

import random

import pytest

from tests.fuzz import WIRES, body_of, changed, check, seed_of
from tests.wire_pieces import IS_SAMPLED


@pytest.mark.parametrize("name", WIRES)
def test_no_changed_answer_breaks_a_promise(name: str) -> None:
    check(WIRES[name], body_of(name, seed_of(name)), 7)
    for seed in range(50 if IS_SAMPLED else 400):
        chance = random.Random(seed)
        check(WIRES[name], body_of(name, changed(seed_of(name), chance)), chance.choice([1, 7, 50]))


@pytest.mark.parametrize("name", WIRES)
def test_the_seed_has_text_thoughts_and_a_call(name: str) -> None:
    wire = WIRES[name]
    kinds = {chunk.type for chunk in wire.chunks(iter(seed_of(name)), lambda seconds: None)}
    assert {"text_delta", "tool_call_finished", "turn_finished"} <= kinds
