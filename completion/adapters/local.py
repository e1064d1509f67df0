"""The embedded model: a real language model in this process, with no account and no key.

    ChatRequest -> OpenAI's lower -> POST to llama.cpp's own server on 127.0.0.1 -> OpenAI's assemble

The server is started on first use and gone at exit; its weights are fetched once. Needs the extra ``local``.
Wire: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md (read November 2026)
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from completion.adapters.openai import PATH, assemble, lower
from completion.contract.request import ChatRequest
from completion.contract.stream import ChatStream
from completion.credentials import ApiKey
from completion.endpoint import Endpoint, Wait
from completion.errors import ConfigurationError
from completion.sse import MAX_EVENT_BYTES
from completion.transport import Session, Timeout

if TYPE_CHECKING:
    from completion.embedded import Server

MODEL = "SmolLM2-135M-Instruct"


class LocalModel:
    """A model that runs here: SmolLM2-135M-Instruct, or any other GGUF file through ``path``.

    ``base_url`` and ``api_key`` are those of its server, which speaks Chat Completions to any other client as well;
    asking for them starts it.

    Args:
        model: the name of the model, or the path of a ``.gguf`` file.
        path: a GGUF file to use instead of the one that is fetched.
        timeout, session, headers, max_event_bytes: as for OpenAIClient.
    """

    name: ClassVar[str] = "local"
    key_variable: ClassVar[None] = None
    has_default_model: ClassVar[bool] = True

    def __init__(
        self,
        model: str | None = None,
        *,
        path: str | PathLike[str] | None = None,
        timeout: Wait = Timeout(),  # noqa: B008  immutable
        session: Session | None = None,
        headers: Mapping[str, str] | None = None,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        if path is None and model is not None and model.endswith(".gguf"):
            model, path = None, model
        if path is None and model not in (None, MODEL):
            raise ConfigurationError(
                f"the embedded model is {MODEL}, not {model!r}; another one is given as LocalModel(path='any.gguf')",
                provider=self.name,
            )
        self._path = None if path is None else Path(fspath(path))
        self.model = model or (self._path.stem if self._path else MODEL)
        self._options: dict[str, Any] = {
            "timeout": timeout, "session": session, "headers": headers, "max_event_bytes": max_event_bytes
        }  # fmt: skip
        self._lock = threading.Lock()
        self._endpoint_of_server: tuple[str, Endpoint] | None = None

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:<port>/v1``.

        Raises:
            ConfigurationError: the server cannot be started: the message gives the command to run.
        """
        return self._server().base_url

    @property
    def api_key(self) -> str:
        """The random key of the server. Raises as ``base_url`` does."""
        return self._server().api_key

    def chat_stream(self, req: ChatRequest) -> ChatStream:
        """The answer as a stream; the first call starts the server, and fetches the weights if need be.

        Raises:
            CompletionError: whatever keeps the stream from opening.
        """
        payload, dropped = lower(req, self.model, compatible=True, adapter=self.name)
        return self._endpoint().stream(PATH, payload, assemble, model=self.model, dropped=dropped)

    def _server(self) -> Server:
        from completion.embedded import serve
        from completion.weights import weights_path

        try:
            return serve(self._path or weights_path())
        except ConfigurationError as error:
            error.provider, error.model = self.name, self.model
            raise

    def _endpoint(self) -> Endpoint:
        """The endpoint of the server; after a fork it is another one."""
        server = self._server()
        with self._lock:
            if self._endpoint_of_server is None or self._endpoint_of_server[0] != server.base_url:
                endpoint = Endpoint(
                    provider=self.name,
                    base_url=server.base_url,
                    key=ApiKey(server.api_key, "the key of the embedded server"),
                    request_id_headers=(),
                    **self._options,
                )
                self._endpoint_of_server = (server.base_url, endpoint)
            return self._endpoint_of_server[1]

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_endpoint_of_server": None}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"
