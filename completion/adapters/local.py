"""The embedded model: a real language model that runs in this process. It needs no account and no key.

    ChatRequest -> wires.openai_chat.lower -> local_request -> POST to llama.cpp's server on 127.0.0.1
                -> wires.openai_chat.assemble

The server starts on first use and ends with the process. The weights are downloaded once. Needs the extra ``local``.
Wire: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md (read November 2026)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from completion.adapters.account import HttpModel
from completion.adapters.endpoint import Endpoint, TimeoutLike
from completion.adapters.local_request import adapt_to_llama_cpp, check_supported, history_rules
from completion.adapters.openai import PATH
from completion.contract.errors import ConfigurationError
from completion.contract.request import ChatRequest
from completion.embedded.template import CHAT_TEMPLATE
from completion.events import MAX_EVENT_BYTES
from completion.transport import Session, Timeout
from completion.transport.credentials import ApiKey
from completion.wires.openai_chat import CHAT_COMPLETIONS
from completion.wires.openai_chat.dialect import COMPATIBLE
from completion.wires.wire import Lowered

if TYPE_CHECKING:
    from completion.embedded.server import Server

MODEL = "SmolLM2-135M-Instruct"


class LocalModel(HttpModel):
    """The embedded model: SmolLM2-135M-Instruct, or any GGUF file through ``path``.

    llama.cpp's server runs in threads of this process. Other clients of Chat Completions can use the server too, with
    ``base_url`` and ``api_key``. Reading one of the two starts the server.

    Tools: if ``tool_choice`` forces a call, the arguments fit the schema of the tool, so a loop with tools can be tried
    out here. A turn ends after its first call if the call is forced, or with ``parallel_tool_use=False``. With another
    model than SmolLM2, llama.cpp decides when a turn ends. Do not expect more from 135 million parameters: in 20
    requests about the weather of 20 cities with a forced call, all arguments were valid and 13 had the right city. In
    20 requests without a forced call, the model made no call.

    Args:
        model: the name of the model, or the path of a ``.gguf`` file.
        path: a GGUF file to use instead of the one that is downloaded.
        timeout, session, headers, max_event_bytes: see HttpOptions.
    """

    name = "local"
    key_variable = None
    wire = replace(CHAT_COMPLETIONS, history=history_rules)
    path = PATH  # of the requests; the argument `path` is a file
    count_path = f"{PATH}/input_tokens"
    has_default_model: ClassVar[bool] = True

    def __init__(
        self,
        model: str | None = None,
        *,
        path: str | PathLike[str] | None = None,
        timeout: TimeoutLike = Timeout(),  # noqa: B008  immutable
        session: Session | None = None,
        headers: Mapping[str, str] | None = None,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        if path is None and model is not None and model.endswith(".gguf"):
            model, path = None, model
        if path is None and model not in (None, MODEL):
            raise ConfigurationError(
                f"the embedded model is {MODEL}, got {model!r}; give another model as LocalModel(path='any.gguf')",
                provider=self.name,
            )
        self._file = None if path is None else Path(fspath(path)).expanduser()
        self.model = model or (self._file.stem if self._file else MODEL)
        self._is_smollm2 = self._file is None or self._file.name.startswith(MODEL)
        self._options: dict[str, Any] = {
            "timeout": timeout, "session": session, "headers": headers, "max_event_bytes": max_event_bytes
        }  # fmt: skip
        self._endpoint_of_server: tuple[str, Endpoint] | None = None

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:<port>/v1``.

        Raises:
            ConfigurationError: the server cannot be started. The message says what to do.
        """
        return self._server().base_url

    @property
    def api_key(self) -> str:
        """The random key of the server. Raises the same errors as ``base_url``."""
        return self._server().api_key

    def lowered(self, request: ChatRequest) -> Lowered:
        check_supported(request)
        lowered = self.wire.body(request, self.model, COMPATIBLE)
        return adapt_to_llama_cpp(lowered, request, is_smollm2=self._is_smollm2)

    def _server(self) -> Server:
        from completion.embedded.server import serve
        from completion.embedded.weights import weights_path

        file = self._file
        try:
            file = file or weights_path()
            return serve(file, CHAT_TEMPLATE if self._is_smollm2 else None)
        except ConfigurationError as error:
            error.provider, error.model = self.name, self.model
            if self._file is None and file is not None and "damaged" in error.message:
                error.message += f"; if the file is damaged, delete it and try again: {file}"
            raise

    def _endpoint(self) -> Endpoint:
        """The endpoint of the server. After a fork the child has another server, so another endpoint."""
        server = self._server()
        known = self._endpoint_of_server
        if known is None or known[0] != server.base_url:
            endpoint = Endpoint(
                provider=self.name,
                base_url=server.base_url,
                key=ApiKey(server.api_key, "the key of the embedded server"),
                request_id_headers=(),
                no_proxy=True,  # a proxy cannot reach this host, and would read the prompt and the key
                **self._options,
            )
            # Two threads may get here at once. Then one of the two endpoints is dropped, unused.
            known = self._endpoint_of_server = (server.base_url, endpoint)
        return known[1]

    def close(self) -> None:
        """Close the pooled connections. The server runs until the process ends."""
        if self._endpoint_of_server is not None:
            self._endpoint_of_server[1].close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_endpoint_of_server": None}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"
