"""Checks of arguments that several packages share."""

from __future__ import annotations

from completion.contract.model import CompletionModel


def require_model(given: object, owner: str) -> None:
    """Raise TypeError unless the object is a blocking model. ``owner`` begins the message."""
    if isinstance(given, type) or not isinstance(given, CompletionModel):
        what = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
        raise TypeError(f"{owner}: a model has name, model and chat_stream(req); got {what}")
    if hasattr(type(given), "__is_asynchronous__"):
        wrapper = type(given).__name__
        raise TypeError(f"{owner}: the model must be blocking, got {wrapper}; pass the model that {wrapper} wraps")


def require_seconds(given: object, name: str) -> None:
    """Raise ValueError unless the value is None or a positive number."""
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if given is not None and not (is_number and given > 0):  # type: ignore[operator]
        raise ValueError(f"{name} must be a positive number of seconds, got {given!r}")


def require_whole_number(given: object, name: str) -> None:
    """Raise ValueError unless ``given`` is an int of 1 or more. A bool is not a number here."""
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise ValueError(f"{name} must be a whole number of 1 or more, got {given!r}")
