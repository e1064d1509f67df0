"""The base classes of the clients and models of all HTTP adapters.

A client is an account at an endpoint: base URL, key, connections. A model is a model id at a client, and the wire of
the endpoint:

    ChatRequest -> wire.body (lower) -> endpoint: POST -> wire.events -> wire.assemble -> ChatStream
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any, ClassVar, TypedDict

from completion.adapters.endpoint import Endpoint, TimeoutLike
from completion.adapters.model_list import model_ids
from completion.contract.errors import ConfigurationError, MalformedStreamError
from completion.contract.frames import hide_arguments_in_tracebacks
from completion.contract.model import cannot_count
from completion.contract.request import ChatRequest, as_request
from completion.contract.stream import ChatStream, without_our_frames
from completion.events import MAX_EVENT_BYTES
from completion.transport import Session, Timeout
from completion.transport.credentials import ApiKey, Key
from completion.wires.sizes import SizeLimit, check_sizes
from completion.wires.wire import Lowered, Wire


class HttpOptions(TypedDict, total=False):
    """The options that every HTTP adapter has.

    ``timeout``: a Timeout, or a timeout of ``requests``. ``session``: a ``requests.Session`` to use instead of our own.
    ``headers``: sent with every request. ``max_event_bytes``: a larger event raises MalformedStreamError.
    """

    timeout: TimeoutLike
    session: Session | None
    headers: Mapping[str, str] | None
    max_event_bytes: int


class Options(HttpOptions, total=False):
    """The options of most HTTP adapters."""

    api_key: Key | None
    base_url: str | None


class _HidesKeyInTracebacks:
    """A base class: if the constructor of a subclass raises, no local variable in the traceback shows the key."""

    def __init_subclass__(cls) -> None:
        constructor = cls.__dict__.get(name := "__init__")
        if constructor is not None:  # not cls.__init__ = …: type checkers would take it for the signature
            setattr(cls, name, hide_arguments_in_tracebacks(constructor))


class HttpClient(_HidesKeyInTracebacks):
    """An account at an endpoint. A subclass sets the class attributes, the base URL and the key.

    Args:
        api_key: a key, or a function that is called before each request; None reads ``key_variable``.
        base_url: requests go to this URL plus the ``path`` of the model; None is ``default_base_url``.
        key: authorizes the requests in another way than ``Authorization: Bearer``.
        dialect: how this endpoint differs from others of its wire; passed to the wire's ``lower``.
        timeout, headers, session, max_event_bytes: see HttpOptions.
    """

    name: str
    """The family, for telemetry and errors."""
    key_variable: str
    """The environment variable of the key."""
    default_base_url: ClassVar[str | None] = None
    """The base URL if none is given."""
    request_id_headers: ClassVar[tuple[str, ...]] = ("x-request-id",)
    """The response headers that may contain the request id, the best first."""
    own_hosts: ClassVar[str] = ""
    """A pattern for the hosts of the provider itself."""
    documented_sizes: ClassVar[tuple[SizeLimit, ...]] = ()
    """How large files may be at these hosts. A limit that the vendor does not document is not checked."""
    size_limits: tuple[SizeLimit, ...] = ()
    """The limits of this account: ``documented_sizes`` at the provider's own hosts, none at another ``base_url``.

    Set it to check other limits, or to ``()`` to check none."""

    def __init__(
        self,
        *,
        api_key: Key | None = None,
        base_url: str | None = None,
        key: ApiKey | None = None,
        dialect: Any = None,
        timeout: TimeoutLike = Timeout(),  # noqa: B008  immutable
        headers: Mapping[str, str] | None = None,
        session: Session | None = None,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        base_url = base_url or self.default_base_url
        if not base_url:
            raise ConfigurationError("no base URL: give base_url=", provider=self.name)
        self.dialect = dialect
        self.endpoint: Endpoint = Endpoint(
            provider=self.name,
            base_url=base_url,
            key=key or ApiKey(api_key, self.key_variable),
            timeout=timeout,
            headers=headers,
            session=session,
            request_id_headers=self.request_id_headers,
            max_event_bytes=max_event_bytes,
        )
        # Gateways have limits of their own.
        is_own = re.fullmatch(self.own_hosts, self.endpoint.host) is not None
        self.size_limits = self.documented_sizes if is_own else ()

    @property
    def base_url(self) -> str:
        return self.endpoint.base_url

    def model_ids(self) -> list[str]:
        """The ids of the models that the provider lists, in its order.

        Raises:
            UnsupportedContentError: the provider has no such list.
            CompletionError: it refused, was not reached, or sent something else.
        """
        return model_ids(self.endpoint, self.models_path(), self.name)

    def models_path(self) -> str | None:
        """The path of the list of models, with a query if there is one; None if the provider has no such list."""
        return None

    def close(self) -> None:
        """Close the pooled connections. The client can still be used: it opens new ones."""
        self.endpoint.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r})"


class HttpModel(_HidesKeyInTracebacks):
    """A model id at a client. A subclass sets the class attributes; ``chat_stream`` is the same for all.

    Args:
        model: the model id.
        client: the client to share; None makes a ``client_class`` with the options.
        options: the options of the client. A subclass may name them for type checkers.

    Raises:
        TypeError: the id is not a string, or both a client and options are given.
        ConfigurationError: the id is empty, or an option of the client is wrong.
    """

    name: str
    """The family, for telemetry and errors."""
    key_variable: str | None
    """The environment variable of the key; None if there is no key."""
    client_class: ClassVar[Any]
    """The class of the client, a subclass of HttpClient."""
    wire: Wire
    """The wire of the endpoint."""
    path: str
    """The path of requests, after the base URL."""
    count_path: ClassVar[str | None] = None
    """The path of requests that count tokens; None if the API cannot count."""
    counted_fields: ClassVar[Container[str] | None] = None
    """The fields of a lowered request that the counting endpoint accepts; None: all."""
    count_field: ClassVar[str] = "input_tokens"
    """The field of the answer that contains the number of tokens."""

    def __init__(self, model: str, *, client: HttpClient | None = None, **options: Any) -> None:
        if not isinstance(model, str):
            raise TypeError(f"the model id must be a str, got {type(model).__name__}")
        if not model:
            raise ConfigurationError("the model id is empty", provider=self.name)
        if client is not None and options:
            raise TypeError(f"give options to the client, not to the model that shares it: {', '.join(options)}")
        self.model = model
        self.client: HttpClient = client or self.client_class(**options)

    @without_our_frames
    def chat_stream(self, req: ChatRequest | str) -> ChatStream:
        """Send the request and return the open stream; a plain string is one user message.

        Raises:
            CompletionError: the stream could not be opened. No connection is left open.
        """
        body, dropped = self.lowered(as_request(req))
        return self._endpoint().stream(self.request_path(), body, self.wire, model=self.model, dropped=dropped)

    @without_our_frames
    def count_tokens(self, req: ChatRequest | str) -> int:
        """The input tokens of the request, counted by the provider: nothing is generated, and most charge nothing.

        The request is lowered as for ``chat_stream``. The count covers the prompt: messages, system prompt, tools and
        the schema of the answer. It may differ a little from the tokens that are charged.

        Raises:
            UnsupportedContentError: this API cannot count tokens, or does not support a part of the request.
            CompletionError: as for ``chat_stream``.
        """
        body, _ = self.lowered(as_request(req))
        path, counted = self.count_request(body)
        answer = self._endpoint().json(path, counted, model=self.model)
        count = answer.get(self.count_field)
        if type(count) is not int or count < 0:
            raise MalformedStreamError(f"the answer has no number in {self.count_field!r}")
        return count

    def count_request(self, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The path and the body of the request that counts the tokens of a lowered request.

        Raises:
            UnsupportedContentError: this API cannot count tokens.
        """
        if self.count_path is None:
            raise cannot_count(self.name, self.model)
        counted = body if self.counted_fields is None else {k: v for k, v in body.items() if k in self.counted_fields}
        return self.count_path, counted

    def lowered(self, request: ChatRequest) -> Lowered:
        """The JSON body to send, and the names of the request fields that the provider does not support."""
        check_sizes(request.messages, self.client.size_limits)
        return self.wire.body(request, self.model, self.client.dialect, self.client.endpoint.host)

    def _endpoint(self) -> Endpoint:
        return self.client.endpoint

    def request_path(self) -> str:
        """The path of requests, with a query if there is one."""
        return self.path

    @property
    def base_url(self) -> str:
        return self.client.base_url

    def close(self) -> None:
        """Close the pooled connections of the client. Both can still be used: they open new ones."""
        self.client.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r}, base_url={self.base_url!r})"
