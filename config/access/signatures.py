"""The signature of HTTP calls between Segue and a shop's servers, in both directions."""

import hmac

from pydantic import SecretStr

TIMESTAMP = "X-Segue-Timestamp"
SIGNATURE = "X-Segue-Signature"


def sign(secret: SecretStr, timestamp: str, path: str, body: bytes) -> str:
    """The signature of a call: HMAC-SHA256 (RFC 2104) over `timestamp.path.body`, in hex.

    Parameters
    ----------
    timestamp: seconds since 1970, in decimal digits.
    path: the path of the request line, with the query.
    """
    text = f"{timestamp}.{path}.".encode() + body
    return hmac.digest(secret.get_secret_value().encode(), text, "sha256").hex()
