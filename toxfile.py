"""tox finds the Pythons on PATH; those that pyenv keeps beside each other are added to it here."""

import os
from pathlib import Path

root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
kept = sorted(str(path) for path in root.glob("versions/3.*/bin"))
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), *kept])
