"""`python -m channels.sandbox`: the sandbox on its port, until it is stopped."""

import uvicorn

from channels.sandbox.app import create_app
from channels.sandbox.caller import Callbacks
from channels.sandbox.store import Store
from channels.sandbox.timeline import DatabaseTimeline
from config.database import Database
from config.login import own_login
from config.settings import load_settings


def main() -> None:
    settings = load_settings()
    store = Store(settings.data_dir / "sandbox.db", simulated=settings.now)
    callbacks = Callbacks(settings, store.now, simulated=settings.now is not None)
    app = create_app(
        store,
        DatabaseTimeline(Database(settings.database)),
        callbacks,
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
