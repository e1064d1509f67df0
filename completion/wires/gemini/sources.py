"""The sources of an answer -> Citations."""

from __future__ import annotations

from typing import Any

from completion.contract.citations import Citation
from completion.wires.citations import ByteOffsets, citation
from completion.wires.json_values import objects_in


def citations_of(candidate: dict[str, Any], offsets: ByteOffsets) -> tuple[Citation, ...]:
    """The citations of a candidate's ``groundingMetadata`` and ``citationMetadata``, whose offsets count bytes."""
    grounding, recitation = (candidate.get(name) for name in ("groundingMetadata", "citationMetadata"))
    found = _grounding(grounding, offsets) if isinstance(grounding, dict) else []
    if isinstance(recitation, dict):
        # {"citationSources": [{"startIndex": 0, "endIndex": 9, "uri": "https://…", "license": ""}]}; Vertex AI says
        # "citations", with a title
        for name in ("citationSources", "citations"):
            for fields in objects_in(recitation.get(name)):
                found += citation(url=fields.get("uri"), title=fields.get("title"), **_span(fields, offsets))
    return tuple(found)


def _grounding(grounding: dict[str, Any], offsets: ByteOffsets) -> list[Citation]:
    """One citation for each source of each segment, then the sources that no segment names."""
    # {"groundingChunks": [{"web": {"uri": "https://…", "title": "…"}}], "groundingSupports":
    #  [{"segment": {"startIndex": 0, "endIndex": 9, "text": "…"}, "groundingChunkIndices": [0]}]}
    chunks = grounding.get("groundingChunks")
    sources = [_source(chunk) for chunk in chunks] if isinstance(chunks, list) else []
    cited: set[int] = set()
    found: list[Citation] = []
    for support in objects_in(grounding.get("groundingSupports")):
        segment, indices = support.get("segment"), support.get("groundingChunkIndices")
        span = _span(segment, offsets) if isinstance(segment, dict) else {}
        for index in indices if isinstance(indices, list) else ():
            if type(index) is int and 0 <= index < len(sources):
                cited.add(index)
                found += citation(**sources[index], **span)
    return found + [one for n, source in enumerate(sources) if n not in cited for one in citation(**source)]


def _source(chunk: Any) -> dict[str, Any]:
    # {"web": {"uri", "title"}}, {"retrievedContext": {"uri", "title", "text"}} of a file store, {"maps": {…}}, …
    fields = next((value for value in chunk.values() if isinstance(value, dict)), {}) if isinstance(chunk, dict) else {}
    return {"url": fields.get("uri"), "title": fields.get("title"), "cited_text": fields.get("text")}


def _span(fields: dict[str, Any], offsets: ByteOffsets) -> dict[str, Any]:
    # Google's JSON leaves out a startIndex of 0.
    start, end = offsets.characters(fields.get("startIndex", 0)), offsets.characters(fields.get("endIndex"))
    return {"start": start, "end": end}
