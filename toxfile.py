"""tox finds the Pythons on PATH; those that pyenv keeps beside each other are added to it here. And coverage is
measured on one of them: the one that runs tox."""

import os
import sys
from pathlib import Path

root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
kept = sorted(str(path) for path in root.glob("versions/3.*/bin"))
os.environ[f"RUN_py3{sys.version_info.minor}"] = "coverage run"
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), *kept])
