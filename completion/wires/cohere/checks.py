"""Checks a body, before it is sent, for what the API is known to refuse."""

from __future__ import annotations

from typing import Any

from completion.wires.lowering import unsupported


def check(body: dict[str, Any], dialect: Any = None) -> None:
    """Raise UnsupportedContentError for a body that the API is known to refuse."""
    wanted = body.get("response_format")
    if not isinstance(wanted, dict) or wanted.get("type") != "json_object":
        return
    for field in ("tools", "documents"):
        if body.get(field):
            raise unsupported("response_format", f"Cohere does not support it together with {field}")
