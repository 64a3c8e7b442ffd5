"""Links that lead a customer from a message to their own page.

The token is signed, names no address, and does not expire; changing the secret revokes it.
"""

from itsdangerous import BadSignature, URLSafeSerializer

from config.settings import Settings


def unsubscribe_url(settings: Settings, profile_id: int, channel: str, topic: str) -> str:
    """The one-click unsubscribe link (RFC 8058) for one person, channel and topic."""
    token = _serializer(settings).dumps([profile_id, channel, topic])
    return f"{settings.public_url}/u/{token}"


def read_token(settings: Settings, token: str) -> tuple[int, str, str] | None:
    """The profile id, channel and topic that a token of ours names; None for any other text."""
    try:
        profile_id, channel, topic = _serializer(settings).loads(token)
    except (BadSignature, ValueError, TypeError):
        return None
    return profile_id, channel, topic


def _serializer(settings: Settings) -> URLSafeSerializer:
    return URLSafeSerializer(settings.secret_key.get_secret_value(), salt="unsubscribe")
