"""Build sdist and wheel, install the wheel into a fresh virtual environment, and use it from there.

python tests/build_and_install.py SCRATCH_DIRECTORY
"""

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

USE = """
import completion, importlib.metadata
assert "site-packages" in completion.__file__, completion.__file__
assert importlib.metadata.version("completion-stream") == completion.__version__
assert completion.ChatRequest.from_json(completion.ChatRequest("Hi").to_json()) == completion.ChatRequest("Hi")
print("installed and imported:", completion.__version__)
"""


def run(*command: str, cwd: Path | None = None) -> None:
    """Python with these arguments, isolated: folders like ``build/`` hide no module."""
    python, *arguments = command
    subprocess.run([python, "-I", *arguments], check=True, cwd=cwd)


def main(scratch: Path) -> None:
    dist = scratch / "dist"
    run(sys.executable, "-m", "build", "--outdir", str(dist))
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel))
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "completion/py.typed" in names, "the wheel has no py.typed"
    assert not any(name.startswith("tests/") for name in names), "the wheel holds the tests"
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "LICENSE", "README.rst", "tests/contract/test_json.py", "tox.ini"} <= inside, (
        "the sdist is not whole"
    )
    home = scratch / "fresh"
    venv.create(home, clear=True, with_pip=True)
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    run(str(python), "-m", "pip", "install", "-q", str(wheel))
    run(str(python), "-W", "error", "-c", USE, cwd=scratch)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
