"""Adds pyenv's Pythons to PATH, where tox looks for them.

The Python that runs tox also measures coverage and runs the long tables of the tests whole.
"""

import os
import sys
from pathlib import Path

root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
bin_folders = sorted(str(path) for path in root.glob("versions/3.*/bin"))
own = f"py3{sys.version_info.minor}"
os.environ[f"RUN_{own}"] = "coverage run"
os.environ[f"SAMPLED_{own}"] = ""
os.environ[f"WORKERS_{own}"] = "0"
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), *bin_folders])
