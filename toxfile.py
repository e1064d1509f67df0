"""tox finds the Pythons on PATH; those that pyenv keeps beside each other are added to it here. And one of them,
the one that runs tox, measures coverage and takes the long tables of the tests whole."""

import os
import sys
from pathlib import Path

root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
kept = sorted(str(path) for path in root.glob("versions/3.*/bin"))
own = f"py3{sys.version_info.minor}"
os.environ[f"RUN_{own}"] = "coverage run"
os.environ[f"SAMPLED_{own}"] = ""
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), *kept])
