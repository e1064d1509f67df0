"""What the clients and models of HTTP adapters have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypedDict

from completion.adapters.endpoint import Endpoint, TimeoutLike
from completion.contract.errors import ConfigurationError
from completion.transport import Session
from completion.transport.credentials import Key


class Options(TypedDict, total=False):
    """What every HTTP adapter can be given."""

    api_key: Key | None
    base_url: str | None
    timeout: TimeoutLike
    session: Session | None
    headers: Mapping[str, str] | None
    max_event_bytes: int


class HttpClient:
    """What the clients of HTTP adapters have in common. ``_endpoint`` is set by each."""

    name: ClassVar[str]
    key_variable: ClassVar[str]
    _endpoint: Endpoint

    @property
    def base_url(self) -> str:
        return self._endpoint.base_url

    def close(self) -> None:
        """Close the pooled connections; the client can still be used, and opens new ones."""
        self._endpoint.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r})"


class HttpModel:
    """What the models of HTTP adapters have in common: an id, and a client that is shared or their own."""

    client_class: ClassVar[type[HttpClient]]

    def __init__(self, model: str, client: HttpClient | None, options: Mapping[str, Any]) -> None:
        if not isinstance(model, str):
            raise TypeError(f"the model id must be a str, got {type(model).__name__}")
        if not model:
            raise ConfigurationError("the model id is empty", provider=self.client_class.name)
        if client is not None and options:
            raise TypeError(f"give options to the client, not to a model that shares it: {', '.join(options)}")
        self.model = model
        self._client = client or self.client_class(**options)

    @property
    def base_url(self) -> str:
        return self._client.base_url

    def close(self) -> None:
        """Close the pooled connections of the client; both can still be used, and open new ones."""
        self._client.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r}, base_url={self.base_url!r})"
