"""What every wrapper takes from the model that it wraps: ``name``, ``model`` and ``count_tokens``."""

from __future__ import annotations

from completion.contract.model import CompletionModel, count_tokens
from completion.contract.request import ChatRequest, as_request
from completion.contract.stream import without_our_frames


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


class CountsTokens(NamedAfter):
    """A NamedAfter that counts tokens with the model in ``_named_after``."""

    @without_our_frames
    def count_tokens(self, req: ChatRequest | str) -> int:
        """The input tokens of the request, counted by the wrapped model; by the first one, if there are several.

        Raises:
            UnsupportedContentError: that model cannot count tokens.
        """
        return count_tokens(self._named_after, as_request(req))
