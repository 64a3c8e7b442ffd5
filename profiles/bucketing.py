"""Draws that come out the same for the same person every time, on every machine."""

import hashlib


def draw(profile_id: int, salt: str) -> float:
    """A number in [0, 1), uniform over people, independent between salts."""
    digest = hashlib.blake2b(f"{salt}:{profile_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
