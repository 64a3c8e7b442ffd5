"""The export of a person as files: JSON, and a page that people can read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment

from config.access.private_files import make_private_folder, open_private
from config.errors import SegueError

# The sections of the page, by table; other tables are shown under their names.
_TITLES: Mapping[str, str] = {
    "profile": "Who you are",
    "identifier": "Ids and addresses",
    "suppression": "Addresses to which nothing is sent",
    "consent": "What you agreed to",
    "consent_record": "What you said, with the words shown and the proof",
    "email_confirmation": "Opt-ins that wait for a confirmation",
    "preference": "Your choices",
    "event": "What you did",
    "message": "Messages",
    "message_device": "Messages on devices",
    "past_message": "Older messages",
    "enrollment": "Journeys",
    "passage": "Steps of journeys",
    "experiment_arm": "Variants that you got",
    "segment_member": "Segments",
    "held_out": "Group that gets no marketing",
    "merge": "Profiles that were joined",
    "staff_act": "Who of the staff looked at your data",
}
_PAGE = Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ brand }}: your data</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
section { overflow-x: auto } table { border-collapse: collapse; font-size: .875rem }
th, td { border-bottom: 1px solid #bbb; padding: .25rem .75rem .25rem 0; text-align: left;
vertical-align: top; overflow-wrap: anywhere }
</style></head><body>
<h1>Your data at {{ brand }}</h1>
<p>Customer {{ export.customer }}, exported {{ export.exported_at }} for {{ export.asked_by }}.
{% if export.joined %}With what was stored under {{ export.joined | join(", ") }}, which were found
to be the same person.{% endif %}</p>
{% for title, columns, rows in sections %}
<section tabindex="0" aria-label="{{ title }}"><h2>{{ title }}</h2>
<table><thead><tr>{% for name in columns %}<th scope="col">{{ name | replace("_", " ") }}</th>
{% endfor %}</tr></thead><tbody>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></section>
{% endfor %}
</body></html>
""")


def page_of(export: Mapping[str, Any], brand: str) -> str:
    """The page: a table for each section, without columns that are empty."""
    sections = []
    data: Mapping[str, list[dict[str, Any]]] = {
        **export["data"],
        "requests": export["requests"],
    }
    known = {**_TITLES, "requests": "Requests about your data"}
    places = {name: place for place, name in enumerate(known)}
    for name in sorted(data, key=lambda one: places.get(one, len(places))):
        rows = data[name]
        columns = [one for one in rows[0] if any(map(_text, (row[one] for row in rows)))]
        cells = [[_text(row[column]) for column in columns] for row in rows]
        sections.append((known.get(name, name.replace("_", " ")), columns, cells))
    return _PAGE.render(brand=brand, export=export, sections=sections)


def write_export(export: Mapping[str, Any], folder: Path, brand: str) -> list[Path]:
    """Write export.json and export.html, which only their owner can read. Returns the files.

    Raises SegueError if the folder can't be written to.
    """
    contents = {
        "export.json": orjson.dumps(export, option=orjson.OPT_INDENT_2).decode() + "\n",
        "export.html": page_of(export, brand),
    }
    try:
        if not folder.exists():
            make_private_folder(folder)
        for name, text in contents.items():
            with open(folder / name, "w", encoding="utf-8", opener=open_private) as file:
                file.write(text)
    except OSError as error:
        raise SegueError(f"{folder} can't be written to: {error.strerror}") from error
    return [folder / name for name in contents]


def _text(value: Any) -> str:
    if value in (None, {}, []):
        return ""
    if isinstance(value, (dict, list)):
        return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return str(value)
