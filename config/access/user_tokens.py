"""User tokens: the shop's server states which user a page or an app is signed in as.

A token is `expiry.signature`. The expiry is in seconds since 1970. The signature is the HMAC-SHA256
(RFC 2104) of `expiry.user id` with SEGUE_USER_TOKEN_SECRET, in hex. docs/start/clients.md shows how
to make one in Python, Node and PHP.
"""

import hmac

from pydantic import SecretStr

from config.clock.times import Instant


def user_token(secret: SecretStr, user_id: str, expiry: Instant) -> str:
    """The token of a user."""
    return f"{expiry}.{_signature(secret, user_id, str(expiry))}"


def fault_of(token: object, secret: SecretStr, user_id: str, now: Instant) -> str | None:
    """Why a token does not name the user; None if it does.

    The text depends only on the token and the secret, not on what is known of the user.
    """
    if not secret.get_secret_value():
        return "SEGUE_USER_TOKEN_SECRET is not set"
    if token is None:
        return "there is no context.userToken"
    expiry, _, signature = token.partition(".") if isinstance(token, str) else ("", "", "")
    if not (expiry.isascii() and expiry.isdecimal() and len(expiry) <= 12 and signature):
        return "context.userToken is not a token"
    if not hmac.compare_digest(
        signature.lower().encode(), _signature(secret, user_id, expiry).encode()
    ):
        return "context.userToken is not the token of this userId"
    if int(expiry) <= now:
        return "context.userToken has expired"
    return None


def _signature(secret: SecretStr, user_id: str, expiry: str) -> str:
    text = f"{expiry}.{user_id}".encode()
    return hmac.digest(secret.get_secret_value().encode(), text, "sha256").hex()
