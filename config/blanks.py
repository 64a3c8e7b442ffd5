"""Blanks and invisible characters that come along when text is copied, and mean nothing."""

# Soft hyphen, zero-width space, word joiner, byte order mark, and the marks that set the direction
# of text. Not the zero-width joiners, which belong to the spelling of several languages.
_INVISIBLE = "".join(
    map(chr, [0xAD, 0x61C, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), 0xFEFF])
) + "".join(map(chr, [*range(0x2060, 0x2065), *range(0x2066, 0x206A)]))
_REMOVED = str.maketrans("", "", _INVISIBLE)
# What str.isspace is true of, line ends included.
_SPACES = "".join(
    map(chr, [*range(0x09, 0x0E), *range(0x1C, 0x21), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)])
) + "".join(map(chr, [0x2028, 0x2029, 0x202F, 0x205F, 0x3000]))
_AROUND = _SPACES + _INVISIBLE + "\u200c\u200d"


def trimmed(text: str) -> str:
    """The text without blanks of any kind and invisible characters at its two ends."""
    return text.strip(_AROUND)


def visible(text: str) -> str:
    """The text without invisible characters anywhere, trimmed."""
    return trimmed(text.translate(_REMOVED))
