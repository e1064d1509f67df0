"""``python -m completion`` does the same as the command ``completion``."""

import sys

from completion.cli import main

sys.exit(main())
