"""llama.cpp's HTTP server inside this process. No other module imports xllamacpp.

    serve(path, chat_template) -> Server(base_url, api_key, pid)      started on first use, once for each pair

The server is a set of C++ threads behind a socket on 127.0.0.1. The rest of the library only gets its address. The hard
part is to end the threads:

* At exit they must be joined before C++ destroys its statics, or ``exit()`` blocks forever. They must not be joined
  before the last line of Python has run, or daemon threads that read a stream print tracebacks. So only this module
  refers to the engines, and they end when the interpreter clears its modules.
* After ``fork()`` the threads do not exist in the child. The child never destroys the engines that it inherited, closes
  its copies of their sockets, and starts its own server on first use.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import secrets
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from completion.contract.errors import ConfigurationError
from completion.embedded.weights import install_command, require_descriptors
from completion.offload.threads import start_thread

HOST = "127.0.0.1"

SLOTS = 4
"""Answers at the same time; more requests are queued. Two cores: 110 tokens/s with one stream, 140 with four."""

CONTEXT_TOKENS = SLOTS * 5120
"""Tokens that the slots share: four answers of 4096 at once, each after a prompt of 1024.

When the slots together have no token left, llama.cpp fails all their answers, so this is the worst case. One request
can use as many tokens as the model was trained for (SmolLM2: 8192). A token of SmolLM2 needs 22.5 KiB: 450 MiB in all.
An 8-bit cache needs half of that, but reads a long prompt at half the speed.
"""

PING_INTERVAL_S = 10
"""Seconds between SSE comments while the server reads the prompt and sends nothing else."""

MAX_THREADS = 8
"""A guess, not measured: the layers of a small model are too small for more cores."""


@dataclass(frozen=True, slots=True)
class Server:
    """The address of the server of one weights file, and its key; without the key it answers 401.

    ``pid`` is the process that runs it. After a fork, call ``serve()`` again.
    """

    base_url: str
    api_key: str = field(repr=False)
    pid: int


class Engines:
    """The running engines (xllamacpp.Server) with their ports; no other reference to them exists.

    ``__del__`` runs while the interpreter clears this module. Names that begin with an underscore are cleared first, so
    the functions that it calls must not use such a name.
    """

    def __init__(self) -> None:
        self.by_port: dict[int, Any] = {}
        self.may_be_destroyed = True

    def add(self, port: int, engine: Any) -> None:
        if not self.may_be_destroyed:
            never_destroy(engine)
        self.by_port[port] = engine

    def abandon(self) -> None:
        """Forget the engines without stopping them: this process is a fork, and their threads are in the parent.

        Later engines are not stopped either: that would join a thread that all engines share, also in the parent.
        """
        for engine in self.by_port.values():
            never_destroy(engine)
        self.by_port.clear()
        self.may_be_destroyed = False

    def __del__(self) -> None:
        if self.may_be_destroyed and self.by_port:
            # An engine waits for its requests. A queued request ends only when its connection is closed.
            hang_up(set(self.by_port))
            self.by_port.clear()


def never_destroy(engine: Any) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))


def sockets_of(ports: set[int]) -> Iterator[socket.socket]:
    """The open sockets, listening and accepted, whose own address is one of the ports.

    The caller closes or detaches each of them.
    """
    directory = next((path for path in ("/proc/self/fd", "/dev/fd") if os.path.isdir(path)), None)
    for name in os.listdir(directory) if directory else ():
        try:
            candidate = socket.socket(fileno=int(name))
        except OSError:  # not a socket, or the descriptor of the listing itself
            continue
        address: Any = None
        with contextlib.suppress(OSError):
            address = candidate.getsockname()
        if isinstance(address, tuple) and address[0] == HOST and address[1] in ports:
            yield candidate
        else:
            candidate.detach()


def hang_up(ports: set[int]) -> None:
    """End both directions of every connection that the ports have accepted. The engine closes them itself."""
    for accepted in sockets_of(ports):
        with contextlib.suppress(OSError):  # the listening socket is not connected
            accepted.getpeername()
            accepted.shutdown(socket.SHUT_RDWR)
        accepted.detach()


def close_inherited(ports: set[int]) -> None:
    """Close the copies of the parent's sockets: open, they would keep its port and streams alive after its end."""
    for inherited in sockets_of(ports):
        inherited.close()


_servers: dict[tuple[str, str | None], Server] = {}
_engines = Engines()
_lock = threading.RLock()

# With this reference to itself the module is cleared at exit even if frames of daemon threads refer to its globals.
_this_module = sys.modules[__name__]

# At exit, wait for a thread that loads a model, and let no other start: an engine must not be left in a dead frame.
atexit.register(lambda: _lock.acquire())


def serve(path: Path, chat_template: str | None = None) -> Server:
    """The server of the weights file at ``path``, started on first use. Loading SmolLM2 holds the GIL for 1 s.

    Args:
        path: the weights file, in GGUF.
        chat_template: in Jinja; None uses the template in the file.

    Raises:
        ConfigurationError: xllamacpp is not installed; the file is missing, not a GGUF, or cannot be loaded; or the
            system is short of threads, descriptors or memory. No server runs, and a later call tries again.
    """
    key = os.path.realpath(path), chat_template
    with _lock:
        if key in _servers:
            return _servers[key]
    failures: list[Exception] = []

    def load() -> None:
        with _lock:
            if key not in _servers:
                try:
                    _servers[key] = _start(*key)
                except Exception as exc:
                    failures.append(exc)

    # In another thread, because only the main thread gets a KeyboardInterrupt. Between the creation of an engine and
    # its entry in _engines, it would destroy the engine, and that call never returns.
    start_thread("completion-load", load).join()
    if failures:
        raise failures[0]
    return _servers[key]


def _start(path: str, chat_template: str | None) -> Server:
    require_descriptors("starting the local model")
    xllamacpp = _import_xllamacpp()
    _check_header(path)
    api_key = secrets.token_urlsafe(32)
    try:
        engine = xllamacpp.Server(_params(xllamacpp, path, chat_template, api_key))
    except RuntimeError as exc:
        raise ConfigurationError(
            f"llama.cpp cannot load {path}: the file is damaged or truncated, its architecture is unknown to this "
            "version of xllamacpp, or there is not enough memory"
        ) from exc
    address: str = engine.listening_address
    _engines.add(int(address.rpartition(":")[2]), engine)
    return Server(base_url=f"{address}/v1", api_key=api_key, pid=os.getpid())


def _import_xllamacpp() -> Any:
    """Import the package, with a short spin time for its threads.

    GNU OpenMP spins for about a millisecond. On two cores with two other busy processes a stream then makes 4 tokens/s;
    with the short time it makes 28, and on idle cores it is as fast as before. OpenMP reads the environment once, when
    it is loaded. Settings of the user are kept.
    """
    spin_briefly = not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys()
    try:
        if spin_briefly:
            os.environ["GOMP_SPINCOUNT"] = "1000"
        import xllamacpp
    except ImportError as exc:
        raise ConfigurationError(f"the local model needs xllamacpp ({exc}); run: {install_command()}") from exc
    finally:
        if spin_briefly:
            os.environ.pop("GOMP_SPINCOUNT", None)
    return xllamacpp


def _check_header(path: str) -> None:
    """Raise for a file that is clearly wrong: in a forked child, an engine that cannot load a file may never return
    (xllamacpp 2026.10).

    Wire: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """
    try:
        with open(path, "rb") as file:
            magic, header = file.read(4), file.read(20)
    except OSError as exc:
        raise ConfigurationError(f"cannot read the weights file {path}: {exc.strerror or exc}") from exc
    if magic != b"GGUF":
        raise ConfigurationError(f"{path} is not a GGUF file: it must begin with b'GGUF', got {magic!r}")
    version, tensors, facts = struct.unpack("<IQQ", header.ljust(20, b"\0"))
    if not (1 <= version <= 99 and tensors and facts):
        raise ConfigurationError(
            f"{path} is damaged or truncated: its header says {tensors} tensors in version {version}"
        )


def _params(xllamacpp: Any, path: str, chat_template: str | None, api_key: str) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {Path(path).stem}  # without it, every chunk contains the path on this disk
    params.chat_template = chat_template or ""
    params.verbosity = -1  # llama.cpp logs nothing; errors are HTTP answers

    params.hostnames = [HOST]
    params.port = 0
    params.api_keys = [api_key]
    params.cors_origins = ""  # "*" would echo the origin of any web page, and allow credentials
    params.cors_credentials = False
    params.ui = False
    params.endpoint_slots = False
    params.sse_ping_interval = PING_INTERVAL_S

    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = SLOTS
    params.kv_unified = True
    params.cache_ram_mib = 0  # the default keeps up to 8 GiB of old prompts
    params.cache_idle_slots = False
    params.fit_params = False  # measuring free memory first would take 0.2 s
    threads = _physical_cores()
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    return params


def _physical_cores() -> int:
    """The cores that this process may use, at most MAX_THREADS; -1 (llama.cpp counts) if the system does not say.

    llama.cpp counts all cores of the machine, and too many threads are slow: four on two cores reduce a stream from 110
    to 30 tokens/s.
    """
    if sys.platform != "linux":
        return -1
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text())
        except OSError:
            cores.add(str(cpu))
    return min(len(cores), MAX_THREADS)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    if _servers:
        close_inherited(set(_engines.by_port))
        _engines.abandon()
        _servers.clear()
        _exit_without_destructors()


def _exit_without_destructors() -> None:
    """Make ``exit()`` in this child skip the C++ destructors, after Python has ended and stdio is flushed.

    A C++ static of xllamacpp 2026.10 waits in its destructor for a thread that only the parent has. Only glibc has
    ``on_exit``. On other systems such a child may hang, unless it ends with ``os._exit`` as multiprocessing does.
    """
    if hasattr(_libc, "on_exit"):
        # Functions registered last run first: fflush, then _exit.
        _libc.on_exit(ctypes.cast(_libc._exit, ctypes.c_void_p), None)
        _libc.__cxa_atexit(ctypes.cast(_libc.fflush, ctypes.c_void_p), None, None)


if hasattr(os, "register_at_fork"):
    _libc = ctypes.CDLL(None)
    # A fork waits until no model is being loaded: the child could neither use nor ignore half a server.
    os.register_at_fork(
        before=lambda: _lock.acquire(),
        after_in_parent=lambda: _lock.release(),
        after_in_child=_after_fork_in_child,
    )
