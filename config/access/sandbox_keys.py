"""What the sandbox signs its call-backs with, so that the receiver trusts them without set-up.

Both are made from the installation's secret, which the two processes share: no file, no hand-over.
"""

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric import ec

from config.settings import Settings

_CURVE = ec.SECP256R1()  # SendGrid's


def sendgrid_key(settings: Settings) -> ec.EllipticCurvePrivateKey:
    """In the place of the key whose public half SendGrid shows."""
    # below the order of the curve's group, which is a little less than 2 ** 256
    number = int.from_bytes(_derived(settings, "sendgrid")[:31]) + 1
    return ec.derive_private_key(number, _CURVE)


def twilio_token(settings: Settings) -> str:
    """In the place of the account's auth token."""
    return _derived(settings, "twilio").hex()


def _derived(settings: Settings, purpose: str) -> bytes:
    secret = settings.secret_key.get_secret_value().encode()
    return hmac.digest(secret, f"sandbox call-backs: {purpose}".encode(), hashlib.sha256)
