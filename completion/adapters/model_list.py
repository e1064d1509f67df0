"""The list of models of a provider: GET {base_url}/models, or the path that the vendor has for it.

OpenAI and compatible   {"data": [{"id": "gpt-5.6"}]}; Together's is the bare list
Anthropic               {"data": [{"id": "claude-sonnet-4-5"}], "has_more": true, "last_id": "claude-sonnet-4-5"}
Gemini                  {"models": [{"name": "models/gemini-3-pro", "supportedGenerationMethods": ["generateContent"]}],
                         "nextPageToken": "Ab"}
Ollama                  {"models": [{"name": "llama3.2:1b"}]}
Cohere                  {"models": [{"name": "command-a-03-2025", "endpoints": ["chat"]}], "next_page_token": "Ab"}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from completion.adapters.endpoint import Endpoint
from completion.contract.errors import MalformedStreamError, UnsupportedContentError

MAX_PAGES = 100

# Field of a page -> the query parameter that asks for the next one.
_NEXT_PAGE = {"nextPageToken": "pageToken", "next_page_token": "page_token"}

# Fields that tell what a model can do -> the word for answering a chat.
_METHODS = {"supportedGenerationMethods": "generateContent", "endpoints": "chat"}


def model_ids(endpoint: Endpoint, path: str | None, provider: str) -> list[str]:
    """The ids of all pages, in the provider's order, each once.

    Raises:
        UnsupportedContentError: there is no path.
        CompletionError: the provider refused, was not reached, or sent something else.
    """
    if path is None:
        raise UnsupportedContentError("this provider has no list of models", provider=provider)
    ids: dict[str, None] = {}
    page_path = path
    for _ in range(MAX_PAGES):
        page = _page(endpoint.get(page_path), provider)
        known = len(ids)
        ids.update(dict.fromkeys(_ids_of(page, provider)))
        query = _next_page(page)
        if query is None or len(ids) == known:  # a server that ignores the query sends the same page again
            break
        page_path = f"{path}{'&' if '?' in path else '?'}{urlencode(query)}"
    return [*ids]


def _page(document: bytes, provider: str) -> Any:
    try:
        return json.loads(document)
    except (ValueError, RecursionError):
        pass  # raised outside of `except`: the exception holds the document, which may contain an echo of the key
    raise MalformedStreamError("the answer is not JSON: check base_url", provider=provider)


def _ids_of(page: Any, provider: str) -> Iterator[str]:
    rows = page
    if isinstance(page, dict):
        rows = page["data"] if isinstance(page.get("data"), list) else page.get("models")
    if not isinstance(rows, list):
        raise MalformedStreamError("the answer is not a list of models", provider=provider)
    for row in rows:
        found = row if isinstance(row, str) else (row.get("id") or row.get("name")) if isinstance(row, dict) else None
        if isinstance(found, str) and found and (isinstance(row, str) or _can_chat(row)):
            yield found.removeprefix("models/")


def _can_chat(row: dict[str, Any]) -> bool:
    """False if the provider says that the model does something else, such as embeddings."""
    known = [(row[field], word) for field, word in _METHODS.items() if isinstance(row.get(field), list)]
    return all(word in methods for methods, word in known)


def _next_page(page: Any) -> dict[str, str] | None:
    """The query of the next page; None after the last one."""
    if not isinstance(page, dict):
        return None
    if page.get("has_more") is True and isinstance(page.get("last_id"), str):
        return {"after_id": page["last_id"]}
    found = ((parameter, page.get(field)) for field, parameter in _NEXT_PAGE.items())
    return next(({parameter: token} for parameter, token in found if isinstance(token, str) and token), None)
