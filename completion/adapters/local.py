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

from completion.adapters.account import HttpModel
from completion.adapters.endpoint import Endpoint, TimeoutLike
from completion.adapters.openai import PATH
from completion.contract.errors import ConfigurationError
from completion.contract.messages import AudioBlock, DocumentBlock, ImageBlock
from completion.contract.request import ChatRequest
from completion.embedded.template import CALL_BEGINS, CALL_ENDS, CHAT_TEMPLATE
from completion.events import MAX_EVENT_BYTES
from completion.transport import Session, Timeout
from completion.transport.credentials import ApiKey
from completion.wires.lowering import unsupported
from completion.wires.openai_chat import CHAT_COMPLETIONS
from completion.wires.openai_chat.dialect import COMPATIBLE
from completion.wires.wire import Lowered

if TYPE_CHECKING:
    from completion.embedded.server import Server

MODEL = "SmolLM2-135M-Instruct"


class LocalModel(HttpModel):
    """A model that runs here: SmolLM2-135M-Instruct, or any other GGUF file through ``path``.

    ``base_url`` and ``api_key`` are those of its server, which speaks Chat Completions to any other client as well;
    asking for them starts it.

    Tools: llama.cpp holds a call that ``tool_choice`` forces to the schema of its tool, so that a loop with tools can
    be tried out here. A turn ends with its first call where that is forced, and with ``parallel_tool_use=False``; with
    another model than SmolLM2, llama.cpp decides. Do not expect more of 135 million parameters: of 20 calls that were
    forced, about the weather of 20 cities, all had valid arguments, and 13 the right city; of 20 that were not, it
    made none.

    Args:
        model: the name of the model, or the path of a ``.gguf`` file.
        path: a GGUF file to use instead of the one that is fetched.
        timeout, session, headers, max_event_bytes: as for OpenAIClient.
    """

    name = "local"
    key_variable = None
    wire = CHAT_COMPLETIONS
    path = PATH
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
                f"the embedded model is {MODEL}, not {model!r}; another one is given as LocalModel(path='any.gguf')",
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
            ConfigurationError: the server cannot be started: the message gives the command to run.
        """
        return self._server().base_url

    @property
    def api_key(self) -> str:
        """The random key of the server. Raises as ``base_url`` does."""
        return self._server().api_key

    def lowered(self, request: ChatRequest) -> Lowered:
        self._check(request)
        body, dropped = self.wire.body(request, self.model, COMPATIBLE)
        if self._is_smollm2 and body.pop("reasoning_effort", None):
            dropped.append("reasoning_effort")
        if _is_forced(request):
            self._force_a_call(body, request)
        if self._is_smollm2 and "tools" in body and (_is_forced(request) or request.parallel_tool_use is False):
            # With this template, parallel_tool_calls means nothing to llama.cpp (xllamacpp 2026.10).
            body["stop"] = [*request.stop_sequences, CALL_ENDS]
        return body, dropped

    def _check(self, req: ChatRequest) -> None:
        """Raise for what llama.cpp would leave out without a word, or refuse: there is no projector for pictures and
        sounds here."""
        for message in req.messages:
            for block in message.blocks:
                if isinstance(block, ImageBlock | AudioBlock | DocumentBlock):
                    raise unsupported(type(block).__name__, "the embedded model reads text only")
        if _is_forced(req) and req.response_format is not None:
            raise unsupported("response_format", "llama.cpp cannot force a call and a format at once")

    def _force_a_call(self, payload: dict[str, Any], req: ChatRequest) -> None:
        """Where a tool is named, llama.cpp leaves the choice to the model, so it is told of no other tool. And it lets
        a model talk before the call, which SmolLM2 does without end: here the call has begun already."""
        payload["tool_choice"] = "required"
        if req.tool_choice is not None and req.tool_choice.name is not None:
            payload["tools"] = [tool for tool in payload["tools"] if tool["function"]["name"] == req.tool_choice.name]
        if self._is_smollm2:
            payload["messages"] = [*payload["messages"], {"role": "assistant", "content": f"{CALL_BEGINS}\n"}]

    def _server(self) -> Server:
        from completion.embedded.server import serve
        from completion.embedded.weights import weights_path

        path = self._file
        try:
            path = path or weights_path()
            return serve(path, CHAT_TEMPLATE if self._is_smollm2 else None)
        except ConfigurationError as error:
            error.provider, error.model = self.name, self.model
            if self._file is None and path is not None and "damaged" in error.message:
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
                no_proxy=True,  # a proxy could not reach it, and would read the prompt and the key
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


def _is_forced(req: ChatRequest) -> bool:
    return req.tool_choice is not None and req.tool_choice.kind in ("any", "tool")
