"""``name`` and ``model`` for a model that wraps another one."""

from __future__ import annotations

from completion.contract.model import CompletionModel


class NamedAfter:
    """Has the ``name`` and ``model`` of the model in ``_named_after``, which the subclass sets."""

    _named_after: CompletionModel

    @property
    def name(self) -> str:
        """The adapter family of the wrapped model; of the first one, if there are several."""
        return self._named_after.name

    @property
    def model(self) -> str:
        """The id of the wrapped model; of the first one, if there are several."""
        return self._named_after.model
