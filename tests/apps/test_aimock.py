"""Every wire against the npm package ``@copilotkit/aimock``, a provider's server that we did not write.

Where it differs from the providers' documentation, the documentation is right and the test asks for less.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from completion import (
    AnthropicModel,
    ChatModel,
    ChatRequest,
    FinishReason,
    GeminiInteractionsModel,
    GeminiModel,
    OpenAIModel,
    OpenAIResponsesModel,
    RateLimitError,
    run_chat,
    tool,
)
from tests.apps.servers import free_port, wait_for

FOLDER = Path(__file__).parent / "aimock"
INSTALL_S, START_S = 120, 30

MODELS: dict[str, Callable[[str], ChatModel]] = {
    "chat": lambda url: OpenAIModel("gpt-5.4-mini", api_key="k", base_url=f"{url}/v1"),
    "responses": lambda url: OpenAIResponsesModel("gpt-5.6", api_key="k", base_url=f"{url}/v1"),
    "messages": lambda url: AnthropicModel("claude-sonnet-4-6", api_key="k", base_url=url),
    "gemini": lambda url: GeminiModel("gemini-3.8-flash", api_key="k", base_url=url),
    "interactions": lambda url: GeminiInteractionsModel("gemini-3.8-flash", api_key="k", base_url=url),
}
models = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in MODELS.items()])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the running server."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs node and npm")
    folder = tmp_path_factory.mktemp("aimock")
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    command = [npm, "install", "--prefer-offline", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S)
    program = folder / "node_modules" / ".bin" / "llmock"
    if run.returncode or not program.exists():
        pytest.skip(f"npm cannot install aimock:\n{run.stderr[-500:]}")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    arguments = [node, str(program.resolve()), "--fixtures", "fixtures.json", "--port", str(port)]
    with (folder / "log").open("wb") as log, subprocess.Popen(arguments, cwd=folder, stdout=log, stderr=log) as process:
        try:

            def answers() -> bool:
                try:
                    return requests.get(address, timeout=1).status_code > 0
                except requests.RequestException:
                    return False

            assert wait_for(answers, START_S), (folder / "log").read_text()
            yield address
        finally:
            process.terminate()


@models
def test_an_answer_arrives_in_pieces_and_whole(url: str, make: Callable[[str], ChatModel]) -> None:
    with make(url).chat_stream("hello") as stream:
        chunks = list(stream)
    turn = make(url).chat_stream("hello").collect()
    assert turn.text == "Grüße 🙂 from the mock, in several words."
    assert turn.reason == FinishReason.END_TURN
    # aimock 1.43 sends no thoughts on the Interactions API.
    assert turn.reasoning == ("" if make is MODELS["interactions"] else "I think about it.")
    assert sum(chunk.type == "text_delta" for chunk in chunks) > 1


@models
def test_a_run_calls_its_tools_and_ends(url: str, make: Callable[[str], ChatModel]) -> None:
    cities: list[str] = []

    @tool
    def get_weather(city: str) -> str:
        """The weather in a city."""
        cities.append(city)
        return f"Rain in {city}."

    result = run_chat(make(url), ChatRequest("What is the weather?"), tools=[get_weather]).collect()
    assert result.text == "Rain in both."
    assert sorted(cities) == ["Bonn", "Köln"]


@models
def test_an_error_of_the_server_is_raised_as_ours(url: str, make: Callable[[str], ChatModel]) -> None:
    with pytest.raises(RateLimitError, match="Slow down"):
        make(url).chat_stream("fail")
