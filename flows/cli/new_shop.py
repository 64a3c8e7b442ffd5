"""`segue init`: a folder for one's own shop, beside the examples of the checkout."""

import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer

from config.errors import SegueError
from config.settings import Settings
from flows.cli.output import AsJson, say_done
from journeys.definition import segment_file
from journeys.definition.catalog import LIBRARY
from journeys.definition.persona_file import FILE as PERSONAS_FILE
from profiles.computed.definitions import FILE as TRAITS_FILE

_SEGMENTS = """# Segments as data; docs/journeys/segments.md shows every form. An example:
#
# [german-buyers]
# description = "Bought within 90 days, and live in Germany"
# all = [
#     { event = "order_completed", within = "90d" },
#     { attribute = "country", is = "DE" },
# ]
"""
_TRAITS = """# Computed traits; docs/journeys/traits.md shows every measure. An example:
#
# [traits.orders_90d]
# description = "Orders within 90 days"
# count = "order_completed"
# within = "90d"
"""
_PERSONAS = """# Personas in order; docs/journeys/personas.md says more. An example:
#
# [[personas]]
# name = "champions"
# description = "Spent over 1,000"
# attribute = "lifetime_value"
# above = 1000
#
# [[personas]]
# name = "others"
# description = "All others"
# everyone = true
"""


commands = typer.Typer()

# The journey of the examples that a new shop begins with.
_FIRST_JOURNEY = "welcome"
_DEFAULT_MAP = Path(__file__).parents[2] / "profiles" / "imports" / "maps" / "customers.toml"
# The settings that most shops change, in the order in which they come up.
_OFFERED = (
    *("brand", "link_hosts", "secret_key", "write_key", "public_url", "staff_url", "testers"),
    *("database_url", "rates", "revenue_event", "revenue_amount", "providers"),
)
_README = """# {name}

Everything of this shop, for Segue. Load the settings first, in each terminal:

```sh
set -a; . {settings}; set +a
```

Then:

```sh
segue check                                                       # the policy, the journeys, names
segue import customers.csv --map {columns} --dry-run
segue up                                                          # everything, on this machine
```

- `policy.toml`: sending hours, frequency caps, topics, consent.
- `library/`: a folder for each journey, and `segments.py`.
- `segments.toml`: segments as data; `traits.toml`: values computed from events.
- `personas.toml`: groups of customers; each has one.
- `customers.toml`: what the columns of the file of customers mean.
- `segue.env`: settings; what is not set has its default.
"""


@commands.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The new folder.")] = Path("shop"),
    customers: Annotated[
        Path | None, typer.Option("--from", help="Guess the column map from this file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a folder for a shop: policy, journeys, segments, column map and settings."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SegueError(f"{folder} exists already and is not empty; choose another folder")
    columns = _DEFAULT_MAP.read_text(encoding="utf-8")
    if customers is not None:
        # It loads numpy.
        from profiles.imports.guess import guessed_map

        columns = guessed_map(customers)
    folder.mkdir(parents=True, exist_ok=True)
    here = folder.resolve()
    shutil.copyfile(Settings().policy_file, here / "policy.toml")
    library = here / "library"
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(LIBRARY / _FIRST_JOURNEY, library / _FIRST_JOURNEY, ignore=without)
    shutil.copyfile(LIBRARY / "segments.py", library / "segments.py")
    for name, text in (
        ("customers.toml", columns),
        (segment_file.FILE, _SEGMENTS),
        (TRAITS_FILE, _TRAITS),
        (PERSONAS_FILE, _PERSONAS),
        ("segue.env", _settings(here)),
        (
            "README.md",
            _README.format(
                name=here.name,
                settings=shlex.quote(str(here / "segue.env")),
                columns=shlex.quote(str(here / "customers.toml")),
            ),
        ),
    ):
        (here / name).write_text(text, encoding="utf-8")
    said = f"{folder} is ready; {folder / 'README.md'} has the next commands"
    say_done(said, as_json=as_json, folder=str(here))


def _settings(folder: Path) -> str:
    """The settings file: where the shop's own files are, and others as comments."""
    lines = ["# Settings of the shop. docs/reference/settings.md has all of them."]
    own = {"policy_file": "policy.toml", "library": "library", "data_dir": "data"}
    for name, file in own.items():
        lines += ["", f"# {Settings.model_fields[name].description}"]
        lines.append(f"SEGUE_{name.upper()}={shlex.quote(str(folder / file))}")
    for name in _OFFERED:
        lines += ["", f"# {Settings.model_fields[name].description}", f"# SEGUE_{name.upper()}="]
    return "\n".join(lines) + "\n"
