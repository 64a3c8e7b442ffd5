"""Render the messages of a simulation: each template once for each set of values that it prints.

Whether a message can be rendered depends on the template and on these values. Nobody reads the
content, so customers with equal values share one, with the links of the first of them.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson
from typing_extensions import override

from channels.messages import transitions
from channels.outbox.claims import Claim
from channels.outbox.render import NotRendered, Rendered, Renderer, unrenderable
from channels.templates.compile import Template
from config.database.engine import Tx
from config.settings import Settings
from journeys.engine.advance import Engine
from journeys.engine.hand_over import CatalogJourneys

# The first two names of a dotted path: event.items[0].name -> event, items
_PLACE = re.compile(r"(\w+)(?:\.(\w+))?")
_MOST = 50_000


class RememberingRenderer(Renderer):
    """A renderer that remembers what came of equal values."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._known: dict[tuple[int, str, bytes], Rendered | str] = {}

    @override
    def render(self, one: Claim, template: Template) -> Rendered:
        key = (id(template), one.kind, _values(one.context, template))
        known = self._known.get(key)
        if known is None:
            try:
                known = super().render(one, template)
            except NotRendered as refused:
                known = str(refused)
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[key] = known
        if isinstance(known, str):
            raise NotRendered(known)
        return known


def _values(context: Mapping[str, Any], template: Template) -> bytes:
    values = []
    for root, name in _places(template.variables, named=template.language is None):
        there = context.get(root)
        if name is not None and isinstance(there, Mapping):
            there = there.get(name)
        values.append(there)
    return orjson.dumps(values, default=str)


@lru_cache(maxsize=4096)
def _places(variables: frozenset[str], *, named: bool) -> tuple[tuple[str, str | None], ...]:
    """Where a template's values are: the first two names of each path, without links.

    named: whether it is in the customer's language.
    """
    found: set[tuple[str, str | None]] = {("profile", "language")} if named else set()
    for path in variables:
        match = _PLACE.match(path)
        assert match is not None
        if match[1] != "links":
            found.add((match[1], match[2]))
    return tuple(sorted(found, key=str))


def refuse_unrenderable(tx: Tx, engine: Engine, settings: Settings) -> None:
    """Refuse the planned messages that could not be sent with today's data."""
    refused = unrenderable(
        tx, engine.planner.policy, CatalogJourneys(engine.mover), RememberingRenderer(settings)
    )
    transitions.skip(tx, refused)
