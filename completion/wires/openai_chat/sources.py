"""The sources that an answer cites -> Citations. Each server has its own fields for them."""

from __future__ import annotations

from typing import Any

from completion.contract.citations import Citation
from completion.wires.citations import citation
from completion.wires.json_values import objects_in, str_or_empty


def citations_of(item: dict[str, Any]) -> tuple[Citation, ...]:
    """The citations of an object in a delta: of an annotation, or of Azure's ``context``."""
    # OpenAI, OpenRouter: {"type": "url_citation", "url_citation": {"url": "https://…", "title": "…", "content": "…",
    #                      "start_index": 0, "end_index": 9}}
    kind = str_or_empty(item.get("type"))
    if kind.endswith("_citation"):
        fields = item.get(kind)
        return _typed(fields if isinstance(fields, dict) else item)
    # Azure: {"citations": [{"url": "https://…", "title": "…", "content": "…", "filepath": "a.pdf"}], "intent": "…"}
    return tuple(one for fields in objects_in(item.get("citations")) for one in _typed(fields))


def citations_of_sources(sources: dict[str, Any]) -> tuple[Citation, ...]:
    """The citations of the lists beside the choices, in the order to which ``[1]`` in the text refers."""
    # Perplexity: {"citations": ["https://…"], "search_results": [{"url": "https://…", "title": "…", "snippet": "…"}]}
    # xAI: {"citations": ["https://…"]}
    results = {str_or_empty(fields.get("url")): fields for fields in objects_in(sources.get("search_results"))}
    cited = sources.get("citations")
    if not isinstance(cited, list):
        return tuple(one for fields in results.values() for one in _typed(fields))
    found: list[Citation] = []
    for item in cited:
        url = str_or_empty(item)
        found += _typed(item if isinstance(item, dict) else results.get(url, {"url": url}))
    return tuple(found)


def _typed(fields: dict[str, Any]) -> tuple[Citation, ...]:
    # The message is the whole text of a turn, so its offsets are those of the turn.
    return citation(
        url=fields.get("url"),
        title=fields.get("title") or fields.get("filename") or fields.get("filepath"),
        cited_text=fields.get("content") or fields.get("snippet"),
        start=fields.get("start_index"),
        end=fields.get("end_index"),
    )
