"""How HTTP calls between Segue and a shop's own servers are signed, in both directions."""

import hmac

from pydantic import SecretStr

TIMESTAMP = "X-Segue-Timestamp"
SIGNATURE = "X-Segue-Signature"


def sign(secret: SecretStr, timestamp: str, path: str, body: bytes) -> str:
    """The signature of a call: HMAC-SHA256 (RFC 2104) over `timestamp.path.body`, in hex.

    Parameters
    ----------
    timestamp: seconds since 1970, in decimal digits.
    path: as it stands in the request line, with the query; a signature is good for no other path.
    """
    text = f"{timestamp}.{path}.".encode() + body
    return hmac.digest(secret.get_secret_value().encode(), text, "sha256").hex()
