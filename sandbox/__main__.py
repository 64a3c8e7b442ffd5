"""`python -m sandbox`: the sandbox on its port, until it is stopped."""

import uvicorn

from config.access.login import own_login
from config.database.engine import Database
from config.settings import load_settings
from sandbox.app import create_app
from sandbox.inbox.timeline import DatabaseTimeline
from sandbox.providers.caller import Callbacks
from sandbox.shop.pages import Shop
from sandbox.store import Store


def main() -> None:
    settings = load_settings()
    store = Store(settings.data_dir / "sandbox.db", simulated=settings.now)
    callbacks = Callbacks(settings, store.now, simulated=settings.now is not None)
    db = Database(settings.database, now=settings.now)
    app = create_app(
        store,
        DatabaseTimeline(db),
        callbacks,
        Shop(settings, db),
        login=own_login(settings),
        host=settings.host,
    )
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.sandbox_port,
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
