"""Whether a file can be written, for everything that is saved after an answer has been paid for."""

from __future__ import annotations

import tempfile
from pathlib import Path


def can_write_into(folder: Path) -> bool:
    """Whether a file can be made in the folder. ``os.access`` says yes to root, also where nobody can write."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
