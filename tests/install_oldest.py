"""Install the oldest versions that setup.py allows: pip, with each "name>=version" of it as "name==version".

python tests/install_oldest.py PIP_INSTALL_ARGUMENTS
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

SETUP = Path(__file__).parent.parent / "setup.py"


def main(arguments: list[str]) -> int:
    bounds = re.findall(r'"([\w-]+)>=([\w.]+)', SETUP.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "oldest.txt"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in bounds), encoding="utf-8")
        return subprocess.call([sys.executable, "-m", "pip", "install", "-c", str(constraints), *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
