"""A source that an answer cites."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from completion.contract.codec import Record


@dataclass(frozen=True, slots=True)
class Citation(Record):
    """A source that an answer cites, and the part of the answer that cites it. A field is None if it is unknown.

    ``url``: the page or the file. ``title``: the title of the page, or the name of the document. ``cited_text``: the
    words of the source. ``start``, ``end``: the place in the answer. On every provider, ``turn.text[start:end]`` are
    the words that cite the source. If both are equal, the source is cited at that point.
    """

    url: str | None = None
    title: str | None = None
    cited_text: str | None = None
    start: int | None = None
    end: int | None = None


def distinct_sources(citations: Iterable[Citation]) -> list[tuple[str, str]]:
    """Title and URL of each source, in the order of the first citations. An unknown title or URL is empty."""
    titles: dict[str, tuple[str, str]] = {}
    for citation in citations:
        title, url = citation.title or "", citation.url or ""
        if title or url:
            titles.setdefault(url or title, (title, url))
    return list(titles.values())
