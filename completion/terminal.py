"""What a terminal may be given of a text that a model wrote."""

# Control codes move the cursor, change the title, and more; only tab and line end pass.
_CONTROL_CODES = {number: None for number in (*range(0x20), *range(0x7F, 0xA0)) if chr(number) not in "\t\n"}


def harmless(text: str) -> str:
    """The text without control codes."""
    return text.translate(_CONTROL_CODES)
