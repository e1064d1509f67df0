"""The server inside the process, with the real model. What ends or forks runs in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from completion.contract.errors import ConfigurationError
from completion.embedded.server import Server, serve
from completion.embedded.weights import weights_path

pytest.importorskip("xllamacpp")

ROOT = Path(__file__).parents[2]
PRELUDE = """
import os, sys, threading, time, warnings
import requests
from pathlib import Path
from completion.embedded.server import serve
warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
path = Path(sys.argv[1])

def ask(server, max_tokens):
    return requests.post(
        server.base_url + "/chat/completions", stream=True, timeout=60,
        headers={"Authorization": "Bearer " + server.api_key},
        json={"messages": [{"role": "user", "content": "Count."}], "max_tokens": max_tokens,
              "stream": True, "ignore_eos": True})

def answer(server):
    response = ask(server, 5)
    return response.status_code, list(filter(None, response.iter_lines()))[-1]

def status_of(child):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "hangs"
"""


@pytest.fixture(scope="session")
def weights() -> Path:
    return weights_path()


@pytest.fixture(scope="session")
def server(weights: Path) -> Server:
    return serve(weights)


def chat(server: Server, **fields: object) -> requests.Response:
    return requests.post(
        f"{server.base_url}/chat/completions",
        headers={"Authorization": f"Bearer {server.api_key}"},
        json={"messages": [{"role": "user", "content": "Hi"}], **fields},
        timeout=120,
    )


def run(weights: Path, script: str, *, timeout_s: float = 90) -> subprocess.CompletedProcess[str]:
    """Run the script in a new process. Without OMP_THREAD_LIMIT: exits and forks are tested with all threads."""
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_THREAD_LIMIT"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + script, str(weights)],
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def assert_quiet_success(result: subprocess.CompletedProcess[str]) -> None:
    assert (result.returncode, result.stderr) == (0, "")


def test_it_answers(server: Server) -> None:
    answer = chat(server, max_tokens=8)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]


def test_it_listens_on_loopback_only(server: Server) -> None:
    assert server.base_url.startswith("http://127.0.0.1:")


def test_llama_cpp_options_in_the_environment_are_ignored(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {
        "HOST": "0.0.0.0", "PORT": "1", "API_PREFIX": "/x", "MODEL": "/x", "CHAT_TEMPLATE": "chatml", "CTX_SIZE": "64",
        "N_PARALLEL": "1", "N_PREDICT": "1", "ENDPOINT_SLOTS": "1", "SSL_KEY_FILE": "/x", "SSL_CERT_FILE": "/x",
    }  # fmt: skip
    for name, value in options.items():
        monkeypatch.setenv(f"LLAMA_ARG_{name}", value)
    monkeypatch.setenv("LLAMA_API_KEY", "guess")
    result = run(
        weights,
        """
server = serve(path)
base, headers = server.base_url.removesuffix("/v1"), {"Authorization": "Bearer " + server.api_key}
facts = requests.get(base + "/props", headers=headers, timeout=10).json()
assert base.startswith("http://127.0.0.1:") and base != "http://127.0.0.1:1", base
assert (facts["total_slots"], facts["default_generation_settings"]["n_ctx"]) == (4, 8192), facts
assert "SmolLM" in facts["chat_template"], facts
assert requests.get(base + "/slots", headers=headers, timeout=10).status_code == 501
assert requests.get(base + "/props", headers={"Authorization": "Bearer guess"}, timeout=10).status_code == 401
assert ask(server, 5).status_code == 200
""",
    )
    assert_quiet_success(result)


def test_another_key_is_refused(server: Server) -> None:
    stranger = Server(server.base_url, "guess", server.pid)
    assert chat(stranger, max_tokens=1).status_code == 401


def test_the_key_is_not_in_the_repr(server: Server) -> None:
    assert server.api_key not in repr(server)


def test_web_pages_of_other_origins_are_refused(server: Server) -> None:
    page = requests.options(
        f"{server.base_url}/chat/completions", headers={"Origin": "https://elsewhere.example"}, timeout=10
    )
    assert page.headers["Access-Control-Allow-Origin"] == ""
    assert page.headers["Access-Control-Allow-Credentials"] == "false"


@pytest.mark.parametrize("headers", [{"Content-Type": "text/plain"}, {"Authorization": "Bearer "}, {}])
def test_a_web_page_whose_host_name_resolves_to_loopback_gets_no_answer(
    server: Server, headers: dict[str, str]
) -> None:
    """DNS rebinding: the page's host name now resolves to 127.0.0.1, so the browser allows its requests."""
    base = server.base_url.removesuffix("/v1")
    port = base.rpartition(":")[2]
    page = {"Host": f"elsewhere.example:{port}", "Origin": f"http://elsewhere.example:{port}", **headers}
    body = '{"messages": [{"role": "user", "content": "Hi"}], "prompt": "Hi", "content": "Hi", "max_tokens": 1}'
    asked = ["chat/completions", "completions", "messages", "responses", "embeddings"]
    for route in [
        "/completion",
        "/infill",
        "/tokenize",
        "/apply-template",
        "/props",
        *(f"/v1/{name}" for name in asked),
    ]:
        assert requests.post(base + route, data=body, headers=page, timeout=60).status_code == 401, route
    for route in ["/v1/models", "/models", "/props", "/slots", "/metrics", f"/v1/models?api_key={server.api_key}"]:
        assert requests.get(base + route, headers=page, timeout=60).status_code == 401, route
    assert requests.get(base, headers=page, timeout=60).status_code == 404  # the server has no page
    assert requests.get(base + "/health", headers=page, timeout=60).json() == {"status": "ok"}  # no other fact


@pytest.mark.parametrize("route", ["/slots", "/metrics", "/tools", "/cors-proxy"])
def test_routes_that_show_or_change_more_are_off(server: Server, route: str) -> None:
    base = server.base_url.removesuffix("/v1")
    answer = requests.get(base + route, headers={"Authorization": f"Bearer {server.api_key}"}, timeout=10)
    assert answer.status_code in (403, 501)


def test_answers_name_the_model_and_not_its_path(server: Server, weights: Path) -> None:
    assert chat(server, max_tokens=1).json()["model"] == weights.stem


def test_max_tokens_of_4096_is_accepted(server: Server) -> None:
    assert chat(server, max_tokens=4096, stop=["e"]).status_code == 200


def test_a_prompt_over_the_trained_context_is_refused(server: Server) -> None:
    too_long = [{"role": "user", "content": "word " * 9000}]
    answer = chat(server, messages=too_long, max_tokens=1)
    assert answer.status_code == 400
    assert answer.json()["error"]["n_ctx"] == 8192


def test_four_streams_run_at_the_same_time(server: Server) -> None:
    streams = [
        requests.post(
            f"{server.base_url}/chat/completions",
            headers={"Authorization": f"Bearer {server.api_key}"},
            json={
                "messages": [{"role": "user", "content": "Count."}],
                "max_tokens": 4096,
                "stream": True,
                "ignore_eos": True,
            },
            stream=True,
            timeout=60,
        )
        for _ in range(4)
    ]
    # None of them can be at its end after a few tokens, so all four are in a slot.
    first = [next(line for line in stream.iter_lines() if b'"content":"' in line) for stream in streams]
    for stream in streams:
        stream.close()
    assert [json.loads(line[5:])["object"] for line in first] == ["chat.completion.chunk"] * 4


def test_one_file_has_one_server(server: Server, weights: Path) -> None:
    assert serve(weights) is server


def test_links_to_one_file_share_its_server(server: Server, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "link.gguf").symlink_to(weights)
    assert serve(tmp_path / "link.gguf") is server


def test_threads_that_start_at_once_share_one_server(weights: Path) -> None:
    result = run(
        weights,
        """
barrier, servers = threading.Barrier(4), []
def start():
    barrier.wait()
    servers.append(serve(path))
threads = [threading.Thread(target=start) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(servers), len(set(map(id, servers))))
""",
    )
    assert_quiet_success(result)
    assert result.stdout == "4 1\n"


def test_two_files_have_two_servers(weights: Path, tmp_path: Path) -> None:
    os.link(weights, tmp_path / "copy.gguf") if _same_disk(weights, tmp_path) else _copy(weights, tmp_path)
    result = run(
        weights,
        f"""
one, two = serve(path), serve(Path({str(tmp_path / "copy.gguf")!r}))
print(one.base_url != two.base_url, answer(one), answer(two))
""",
    )
    assert_quiet_success(result)
    assert result.stdout.startswith("True (200, ")


def _same_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def _copy(weights: Path, folder: Path) -> None:
    (folder / "copy.gguf").write_bytes(weights.read_bytes())


def test_the_error_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.gguf: No such file"):
        serve(tmp_path / "missing.gguf")


def test_the_error_names_a_file_that_is_not_a_gguf(tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_text("<html>")
    with pytest.raises(ConfigurationError, match=r"page\.gguf is not a GGUF"):
        serve(tmp_path / "page.gguf")


def test_the_error_names_a_truncated_gguf_and_nothing_is_printed(weights: Path, tmp_path: Path) -> None:
    with weights.open("rb") as file:
        (tmp_path / "half.gguf").write_bytes(file.read(50_000_000))
    result = run(
        weights,
        f"""
from completion.contract.errors import ConfigurationError
try: serve(Path({str(tmp_path / "half.gguf")!r}))
except ConfigurationError as error: print(error)
""",
    )
    assert_quiet_success(result)
    assert "half.gguf" in result.stdout


def test_a_process_that_used_the_server_prints_nothing(weights: Path) -> None:
    result = run(weights, "answer(serve(path))")
    assert_quiet_success(result)
    assert result.stdout == ""


def test_a_process_ends_while_a_stream_is_open(weights: Path) -> None:
    started = time.monotonic()
    result = run(
        weights,
        """
lines = ask(serve(path), 4096).iter_lines()
for _ in range(6): next(lines)
print(time.monotonic())
""",
    )
    assert_quiet_success(result)
    assert time.monotonic() - max(started, float(result.stdout)) < 3


def test_a_process_ends_while_daemon_threads_read_streams(weights: Path) -> None:
    result = run(
        weights,
        """
server, reading = serve(path), threading.Semaphore(0)
def read():
    for line in ask(server, 4096).iter_lines():
        reading.release()
for _ in range(6): threading.Thread(target=read, daemon=True).start()
for _ in range(100): reading.acquire()
print(time.monotonic())
""",
    )
    assert_quiet_success(result)
    assert time.monotonic() - float(result.stdout) < 3


def test_a_process_ends_while_a_daemon_thread_loads_the_model(weights: Path) -> None:
    result = run(
        weights,
        """
began = threading.Event()
def load():
    began.set()
    serve(path)
threading.Thread(target=load, daemon=True).start()
began.wait()
""",
    )
    assert_quiet_success(result)


def test_an_exit_status_is_kept(weights: Path) -> None:
    assert run(weights, "serve(path); sys.exit(7)").returncode == 7


def test_the_environment_is_unchanged(weights: Path) -> None:
    result = run(weights, "before = dict(os.environ); serve(path); print(dict(os.environ) == before)")
    assert_quiet_success(result)
    assert result.stdout == "True\n"


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@needs_fork
def test_a_forked_child_that_does_nothing_ends_without_harm_to_the_parents_server(weights: Path) -> None:
    result = run(
        weights,
        """
server = serve(path)
answer(server)
child = os.fork()
if child == 0: sys.exit(7)
print(status_of(child), *answer(server))
""",
    )
    assert_quiet_success(result)
    assert result.stdout == "7 200 b'data: [DONE]'\n"


@needs_fork
def test_a_forked_child_can_end_with_os_exit(weights: Path) -> None:
    result = run(
        weights,
        """
server = serve(path)
child = os.fork()
if child == 0: os._exit(7)
print(status_of(child), *answer(server))
""",
    )
    assert_quiet_success(result)
    assert result.stdout == "7 200 b'data: [DONE]'\n"


@needs_fork
def test_a_forked_child_starts_its_own_server(weights: Path) -> None:
    result = run(
        weights,
        """
server = serve(path)
answer(server)
child = os.fork()
if child == 0:
    own = serve(path)
    print(own.base_url != server.base_url, own.api_key != server.api_key, own.pid == os.getpid(), *answer(own))
    sys.exit(7)
print(status_of(child), *answer(server))
""",
    )
    assert_quiet_success(result)
    assert result.stdout == "True True True 200 b'data: [DONE]'\n7 200 b'data: [DONE]'\n"


@needs_fork
def test_a_child_of_a_child_starts_its_own_server(weights: Path) -> None:
    result = run(
        weights,
        """
serve(path)
child = os.fork()
if child == 0:
    serve(path)
    grandchild = os.fork()
    if grandchild == 0:
        print(*answer(serve(path)))
        sys.exit(5)
    sys.exit(status_of(grandchild))
print(status_of(child))
""",
    )
    assert_quiet_success(result)
    assert result.stdout == "200 b'data: [DONE]'\n5\n"


@needs_fork
def test_a_fork_from_a_thread_while_streams_run_disturbs_none_of_them(weights: Path) -> None:
    result = run(
        weights,
        """
server = serve(path)
lines = ask(server, 60).iter_lines()
for _ in range(6): next(lines)
ends = []
def fork():
    child = os.fork()
    if child == 0: os._exit(7)
    ends.append(status_of(child))
thread = threading.Thread(target=fork)
thread.start(); thread.join()
print(ends, list(filter(None, lines))[-1])
""",
    )
    assert_quiet_success(result)
    assert result.stdout == "[7] b'data: [DONE]'\n"


@needs_fork
def test_a_child_gets_the_error_of_a_bad_file(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(5000))
    result = run(
        weights,
        f"""
from completion.contract.errors import ConfigurationError
serve(path)
child = os.fork()
if child == 0:
    try: serve(Path({str(tmp_path / "bad.gguf")!r}))
    except ConfigurationError: sys.exit(7)
print(status_of(child))
""",
    )
    assert_quiet_success(result)
    assert result.stdout == "7\n"


@needs_fork
def test_the_port_is_closed_when_the_parent_ends_before_its_child(weights: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            PRELUDE
            + """
server = serve(path)
lines = ask(server, 4096).iter_lines()
next(lines)
print(server.base_url, flush=True)
child = os.fork()
if child == 0:
    sys.stdin.readline()
    os._exit(0)
print(child, flush=True)
os._exit(0)
""",
            str(weights),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    base_url = parent.stdout.readline().strip()
    child = int(parent.stdout.readline())
    parent.wait(timeout=30)
    os.kill(child, 0)  # raises if the child has ended
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{base_url}/models", timeout=10)
    parent.stdin.write("\n")
    parent.stdin.close()
    parent.stdout.close()


def test_another_chat_template_has_another_server(weights: Path) -> None:
    result = run(
        weights,
        """
own, other = serve(path), serve(path, "{% for message in messages %}{{ message.content }}{% endfor %}")
print(own.base_url != other.base_url, serve(path) is own, answer(own)[0], answer(other)[0])
""",
    )
    assert_quiet_success(result)
    assert result.stdout == "True True 200 200\n"


@pytest.mark.parametrize("left", [0, 1, 2, 4])
def test_without_descriptors_the_error_says_so_and_the_next_call_works(weights: Path, left: int) -> None:
    code = (
        f"left = {left}"
        + """
import resource
from completion.contract.errors import ConfigurationError
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    for one in held[:left]:
        os.close(one)
before = threading.active_count()
try:
    serve(path)
except ConfigurationError as error:
    print(error)
assert threading.active_count() == before
for one in held[left:]:
    os.close(one)
print(answer(serve(path))[0])
"""
    )
    said, status = run(weights, code).stdout.splitlines()
    assert "this process has too many files and connections open: close some" in said
    assert status == "200"


def test_without_threads_the_error_says_so_and_the_next_call_works(weights: Path) -> None:
    code = """
from completion.contract.errors import ConfigurationError
usual = threading.stack_size(1 << 46)  # more than there are addresses
try:
    serve(path)
except ConfigurationError as error:
    print(error)
threading.stack_size(usual)
print(answer(serve(path))[0])
"""
    said, status = run(weights, code).stdout.splitlines()
    assert "the system gives this process no more threads" in said
    assert status == "200"
