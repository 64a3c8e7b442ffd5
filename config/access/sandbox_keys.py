"""The secret of each provider that an installation shares with its sandbox."""

import hashlib
import hmac

from config.settings import Settings


def sandbox_secret(settings: Settings, provider: str) -> bytes:
    """32 bytes, derived from SEGUE_SECRET_KEY, which both processes have."""
    secret = settings.secret_key.get_secret_value().encode()
    return hmac.digest(secret, f"sandbox call-backs: {provider}".encode(), hashlib.sha256)
