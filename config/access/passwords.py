"""Hashes of passwords: scrypt (RFC 7914) of the standard library."""

import hmac
import secrets
from base64 import b64decode, b64encode
from hashlib import scrypt

# OWASP's Password Storage Cheat Sheet: N=2^15, r=8, p=3 takes 32 MB of memory.
_N, _R, _P = 2**15, 8, 3
_MEMORY = 64 * 1024 * 1024
# A hash of no password, so that an unknown name takes as long as a wrong password.
NOBODYS = "scrypt$32768$8$3$AAAAAAAAAAAAAAAAAAAAAA==$" + b64encode(bytes(32)).decode()
# The fewest characters of a password that a person chooses.
SHORTEST = 12
# Longer ones are refused unread.
LONGEST = 200


def random_password() -> str:
    """A password of 120 random bits, in 20 characters."""
    return secrets.token_urlsafe(15)


def hash_password(password: str) -> str:
    """`scrypt$N$r$p$salt$hash`, the last two in base64."""
    salt = secrets.token_bytes(16)
    digest = _digest(password, salt, _N, _R, _P)
    return "$".join(
        ("scrypt", str(_N), str(_R), str(_P), b64encode(salt).decode(), b64encode(digest).decode())
    )


def is_password(password: str, stored: str) -> bool:
    """Whether the stored hash is of this password. Takes about a third of a second of CPU."""
    _, n, r, p, salt, expected = stored.split("$")
    given = _digest(password, b64decode(salt), int(n), int(r), int(p))
    return hmac.compare_digest(given, b64decode(expected))


def _digest(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=_MEMORY, dklen=32)
