"""The embedded model: a real language model in this process, with no account and no key.

    ChatRequest -> OpenAI's lower -> POST to llama.cpp's own server on 127.0.0.1 -> OpenAI's assemble

The server is started on first use and gone at exit; its weights are fetched once. Needs the extra ``local``.
Wire: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md (read November 2026)
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from completion.adapters.openai import PATH, assemble, lower
from completion.contract.messages import AudioBlock, DocumentBlock, ImageBlock
from completion.contract.request import ChatRequest
from completion.contract.stream import ChatStream, opening
from completion.credentials import ApiKey
from completion.endpoint import Endpoint, Wait
from completion.errors import ConfigurationError
from completion.lowering import unsupported
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
        self._path = None if path is None else Path(fspath(path)).expanduser()
        self.model = model or (self._path.stem if self._path else MODEL)
        self._options: dict[str, Any] = {
            "timeout": timeout, "session": session, "headers": headers, "max_event_bytes": max_event_bytes
        }  # fmt: skip
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

    @opening
    def chat_stream(self, req: ChatRequest) -> ChatStream:
        """The answer as a stream; the first call starts the server, and fetches the weights if need be.

        Raises:
            CompletionError: whatever keeps the stream from opening.
        """
        self._check(req)
        payload, dropped = lower(req, self.model, compatible=True, adapter=self.name)
        if self._path is None and payload.pop("reasoning_effort", None):
            dropped.append("reasoning_effort")
        return self._endpoint().stream(PATH, payload, assemble, model=self.model, dropped=dropped)

    def _check(self, req: ChatRequest) -> None:
        """Raise for what llama.cpp would leave out without a word, or refuse: there is no projector for pictures and
        sounds here, and SmolLM2's template has no place for tools."""
        for message in req.messages:
            for block in message.blocks:
                if isinstance(block, ImageBlock | AudioBlock | DocumentBlock):
                    raise unsupported(self.name, type(block).__name__, "the embedded model reads text only")
        if req.tools and self._path is None:
            raise unsupported(
                self.name, "tools", f"{MODEL} knows none; LocalModel(path=…) takes a model whose chat template does"
            )

    def _server(self) -> Server:
        from completion.embedded import serve
        from completion.weights import weights_path

        path = self._path
        try:
            path = path or weights_path()
            return serve(path)
        except ConfigurationError as error:
            error.provider, error.model = self.name, self.model
            if self._path is None and path is not None and not isinstance(error.__cause__, ImportError):
                error.message += f"; if the file is damaged, remove it and run the same again: {path}"
            raise

    def _endpoint(self) -> Endpoint:
        """The endpoint of the server; after a fork it is another one."""
        server = self._server()
        known = self._endpoint_of_server
        if known is None or known[0] != server.base_url:
            endpoint = Endpoint(
                provider=self.name,
                base_url=server.base_url,
                key=ApiKey(server.api_key, "the key of the embedded server"),
                request_id_headers=(),
                **self._options,
            )
            # Two threads may come here at once, and one of the two endpoints is forgotten unused.
            known = self._endpoint_of_server = (server.base_url, endpoint)
        return known[1]

    def close(self) -> None:
        """Close the pooled connections; the server runs on until the process ends."""
        if self._endpoint_of_server is not None:
            self._endpoint_of_server[1].close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_endpoint_of_server": None}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"
