"""Serve the staff site in a process of its own, until it is stopped."""

import asyncio
import signal

from config.errors import SegueError
from flows.app import Segue
from flows.http.limits.connections import Config
from flows.http.serving import GRACE, Server, limits_here, listen
from flows.http.staff.app import create_app


async def serve(segue: Segue) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises SegueError if the port is not available, or for real providers without an https:// URL:
    the session's cookie would cross the network unencrypted.
    """
    settings = segue.settings
    if settings.providers == "live" and not settings.staff_url.startswith("https://"):
        raise SegueError(
            "SEGUE_STAFF_URL must be the https:// URL at which your proxy serves the staff site"
        )
    if settings.staff_login_header and not settings.staff_login_proxies:
        raise SegueError(
            "SEGUE_STAFF_LOGIN_HEADER is set, but no proxy may use it: set "
            "SEGUE_STAFF_LOGIN_PROXIES"
        )
    listener = listen(settings, "staff_port", "the staff site")
    config = Config(
        create_app(segue),
        limits_here(),
        settings.trusted_proxies,
        proxy_headers=False,  # create_app reads them
        timeout_graceful_shutdown=GRACE,
    )
    server = Server(config)

    def stop() -> None:
        server.should_exit = True

    for wanted in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(wanted, stop)
    await server.serve(sockets=[listener])
