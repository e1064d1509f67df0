"""What a terminal may be given of a text that a model wrote."""

import shutil

# Control codes move the cursor, change the title, and more; only tab and line end pass.
_CONTROL_CODES = {number: None for number in (*range(0x20), *range(0x7F, 0xA0)) if chr(number) not in "\t\n"}


def terminal_width() -> int:
    """Columns of the terminal, 80 where it does not say."""
    return shutil.get_terminal_size().columns or 80  # Python 3.10 gives 0 for a terminal without a size


def harmless(text: str) -> str:
    """The text without control codes."""
    return text.translate(_CONTROL_CODES)
