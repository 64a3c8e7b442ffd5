"""The public key of the sample shop's page, which is made once and kept in the data folder.

Segue stores only a key's digest, so the page needs a copy. A public key is no secret.
"""

import secrets

from config.access.api_keys import digest_of, live_keys, make_key
from config.access.private_files import open_private
from config.database.engine import Database
from config.settings import Settings


def page_key(db: Database, settings: Settings) -> str:
    """A live key for the origins of the sandbox. Makes one if there is none.

    Raises SegueError or a database error if the database is not ready.
    """
    origins = frozenset(
        f"http://{host}:{settings.sandbox_port}" for host in (settings.host, "localhost")
    )
    file = settings.data_dir / "shop-key"
    kept = file.read_text(encoding="ascii").strip() if file.exists() else ""
    with db.transaction(write=False) as tx:
        known = live_keys(tx).get(digest_of(kept))
    if known is not None and known.origins >= origins:
        return kept
    with db.transaction() as tx:
        # A revoked key keeps its label.
        label = f"sample-shop-{secrets.token_hex(3)}"
        key = make_key(tx, label, public=True, origins=origins)
    with open(file, "w", encoding="ascii", opener=open_private) as written:
        written.write(f"{key}\n")
    return key
