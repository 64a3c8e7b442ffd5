"""The login of this installation's own servers: Prefect, as `segue up` starts it, and the sandbox.

It is created once and stored in the data folder with mode 0600. Reading that file gives access.
"""

import contextlib
import ipaddress
import re
import secrets

from config.access.private_files import make_private_folder, open_private
from config.errors import SegueError
from config.settings import Settings

_USER = "segue"


def is_loopback(host: str) -> bool:
    """Whether a server on this address is reachable only from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def prefect_login(settings: Settings) -> str | None:
    """The login that `segue up` gives Prefect's server; None if it needs none."""
    wanted = settings.prefect_login or not is_loopback(settings.host)
    return own_login(settings) if wanted else None


def own_login(settings: Settings) -> str:
    """`user:password`, created by the first call. Safe to call from several processes at once.

    Raises SegueError if its file has another content.
    """
    file = settings.data_dir / "login"
    make_private_folder(settings.data_dir)
    if not file.exists():
        # Linked when complete: if two processes start together, the first link is kept.
        draft = file.with_name(f"login.{secrets.token_hex(8)}")
        with open(draft, "w", encoding="ascii", opener=open_private) as written:
            written.write(f"{_USER}:{secrets.token_urlsafe(24)}\n")
        with contextlib.suppress(FileExistsError):
            file.hardlink_to(draft)
        draft.unlink()
    with open(file, encoding="ascii", opener=open_private) as kept:
        login = kept.read().strip()
    if not re.fullmatch(r"[^\s:]+:\S{16,}", login):
        raise SegueError(f"{file} has no login (user:password); delete it to create a new one")
    return login


def basic(login: str) -> tuple[str, str]:
    """A login as the pair (user, password) for basic auth of HTTP clients."""
    user, _, password = login.partition(":")
    return user, password
