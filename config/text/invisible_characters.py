"""Remove blanks and invisible characters that copied text contains."""

# Soft hyphen, zero-width space, word joiner, byte order mark, and the marks that set the direction
# of text. Not the zero-width joiners, which belong to the spelling of several languages.
_INVISIBLE = (
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\ufeff"
)
# The characters for which str.isspace is true, line ends included.
_SPACES = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
    "\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
_REMOVED = str.maketrans("", "", _INVISIBLE)
_AROUND = _SPACES + _INVISIBLE + "\u200c\u200d"


def trimmed(text: str) -> str:
    """The text without blanks and invisible characters at both ends."""
    return text.strip(_AROUND)


def visible(text: str) -> str:
    """The text without any invisible characters, trimmed."""
    return trimmed(text.translate(_REMOVED))
