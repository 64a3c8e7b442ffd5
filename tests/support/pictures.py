"""Draw the pictures of docs/marketer/simulation.md: python -m tests.support.pictures"""

import csv
import sys
import tempfile
from pathlib import Path
from typing import Any

from config.clock.times import Instant, parse_instant
from config.database.engine import Database
from config.database.schema import migrate
from config.policy import load_policy
from config.settings import ROOT, load_settings
from flows.app import input_rules
from flows.simulate import answer
from journeys.simulation.plots import days_plot, reasons_plot
from profiles.imports.importer import import_file
from tests.support.shared_data import DATA

IMAGES = ROOT / "docs" / "images"
# After the last order of the file.
NOW: Instant = parse_instant("2011-12-09T13:00:00Z")


def load_year(url: str) -> None:
    """Load the customers, the orders, and the cancelled invoices as abandoned carts."""
    db = Database(url, now=NOW)
    migrate(db)
    settings = load_settings()
    rules = input_rules(settings, load_policy(settings.policy_file))
    import_file(db, DATA / "customers.csv", rules=rules)
    with tempfile.TemporaryDirectory() as folder:
        orders, carts = Path(folder) / "orders.csv", Path(folder) / "carts.csv"
        with (DATA / "orders.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for target, cancelled in ((orders, False), (carts, True)):
            with target.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, rows[0].keys())
                writer.writeheader()
                writer.writerows(one for one in rows if one["invoice"].startswith("C") == cancelled)
        import_file(db, orders, as_event="order_completed", rules=rules)
        import_file(db, carts, as_event="cart_abandoned", rules=rules)
    db.close()


def simulated(url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The results of win-back for lapsed customers, and of cart recovery by its own entry."""
    settings = load_settings().model_copy(update={"database_url": url, "now": NOW})
    return (
        answer(settings, journey="win-back", audience="lapsed", days=30),
        answer(settings, journey="cart-recovery", audience=None, days=30),
    )


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/segue.db"
        load_year(url)
        win_back, carts = simulated(url)
    runs = [("win-back", win_back["by_day"]), ("cart-recovery", carts["by_day"])]
    steps = [*win_back["by_step"], *carts["by_step"]]
    for name, svg in (
        ("days", days_plot("Messages by day, from 9 December 2011", runs)),
        ("steps", reasons_plot("Messages by step and channel", steps)),
    ):
        (IMAGES / f"simulation-{name}.svg").write_text(svg, encoding="utf-8")
        sys.stdout.write(f"docs/images/simulation-{name}.svg\n")


if __name__ == "__main__":
    main()
