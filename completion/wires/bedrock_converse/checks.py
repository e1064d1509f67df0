"""Checks a body, before it is sent, for what Claude is known to refuse while it thinks."""

from __future__ import annotations

from typing import Any

from completion.wires.lowering import unsupported


def check(body: dict[str, Any], dialect: Any = None) -> None:
    """Raise UnsupportedContentError for a body that the API is known to refuse."""
    if not _thinks(body):
        return
    config = body.get("toolConfig")
    choice = config.get("toolChoice") if isinstance(config, dict) else None
    if isinstance(choice, dict) and not choice.keys().isdisjoint({"any", "tool"}):
        raise unsupported("tool_choice", "a tool call cannot be forced while the model thinks")
    sampling = body.get("inferenceConfig")
    temperature = sampling.get("temperature") if isinstance(sampling, dict) else None
    if isinstance(temperature, int | float) and temperature != 1:
        raise unsupported("temperature", f"it cannot be {temperature} while the model thinks")


def _thinks(body: dict[str, Any]) -> bool:
    fields = body.get("additionalModelRequestFields")
    thinking = fields.get("thinking") if isinstance(fields, dict) else None
    return isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive")
