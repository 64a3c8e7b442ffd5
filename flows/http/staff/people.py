"""Find customers, and everything on record about one of them."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, bindparam, select
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from config.clock.times import Instant
from config.database.engine import Tx
from flows.http.staff.site import Site, Visit
from journeys.explain.standing import standings_of
from journeys.explain.timeline import time_line
from journeys.explain.would_go import would_go
from profiles.attributes.names import full_name
from profiles.identity.addresses import channel_addresses, is_retired, is_suppressed_anywhere
from profiles.identity.search import find_profiles, newest_profiles, summaries
from profiles.tables import consents, identifiers, merges, profiles

_NEWEST = 10
_ENTRIES = 50
_p, _i, _c = profiles.c, identifiers.c, consents.c
_PROFILE = bindparam("profile", type_=BigInteger)
_ABOUT = select(*(_p.id, _p.attributes, _p.country, _p.language, _p.timezone, _p.created_at)).where(
    _p.id == _PROFILE
)
_IDENTIFIERS = (
    select(
        *(_i.kind, _i.value, _i.platform),
        is_retired().label("is_retired"),
        is_suppressed_anywhere().label("is_suppressed"),
    )
    .where(_i.profile_id == _PROFILE)
    .order_by(_i.kind, _i.seen_at.desc(), _i.value)
)
_CONSENTS = (
    select(_c.channel, _c.topic, _c.granted, _c.changed_at)
    .where(_c.profile_id == _PROFILE)
    .order_by(_c.channel, _c.topic)
)
_MERGED_INTO = select(merges.c.into_id).where(merges.c.from_id == _PROFILE)
# Kinds of identifiers in words; others are those of addresses.
_KIND = {
    "user_id": "user id",
    "anonymous_id": "anonymous id",
    "email": "e-mail address",
    "phone": "phone number",
    "push_token": "device",
}


def routes(site: Site) -> list[Route]:
    """`/people` and `/people/{id}`.

    A search is a POST: addresses in URLs would stay in the logs of proxies and browsers.
    """
    return [
        Route("/people", site.endpoint("viewer", _newest), methods=["GET"]),
        Route("/people", site.endpoint("viewer", _find), methods=["POST"]),
        Route("/people/{id:int}", site.endpoint("viewer", _show)),
    ]


def _newest(visit: Visit) -> Response:
    with visit.segue.db.transaction(write=False) as tx:
        found = summaries(tx, newest_profiles(tx, _NEWEST))
    return visit.page("people", "People", found=found, text="")


def _find(visit: Visit) -> Response:
    text = visit.form.get("q", "").strip()[:400]
    if not text:
        return RedirectResponse("/people", 303)
    with visit.segue.db.transaction(write=False) as tx:
        found = summaries(tx, find_profiles(tx, text))
    if len(found) == 1:
        return RedirectResponse(f"/people/{found[0].id}", 303)
    return visit.page("people", "People", found=found, text=text)


class ShownIdentifier(NamedTuple):
    """An identifier on the page of its customer. note: why it is not used; or empty."""

    kind: str
    value: str
    note: str


def _show(visit: Visit) -> Response:
    number = visit.request.path_params["id"]
    before = _before(visit.request.query_params.get("before", ""))
    segue = visit.segue
    given = {"profile": number if number < 2**62 else 0}
    with segue.db.transaction(write=False) as tx:
        row = tx.conn.execute(_ABOUT, given).first()
        if row is None:
            return _gone(visit, tx.conn.execute(_MERGED_INTO, given).scalar())
        line = time_line(tx, segue.policy, number, _ENTRIES, before)
        standings = standings_of(tx, segue.catalog, segue.policy, number)
        values: dict[str, Any] = {
            "person": row,
            "name": full_name(row.attributes),
            "identifiers": list(_identifiers(tx, given)),
            "consents": [
                (one, _about(visit, one.topic)) for one in tx.conn.execute(_CONSENTS, given)
            ],
            "standings": standings,
            "would_go": would_go(
                tx, segue.catalog, segue.policy, segue.settings, number, standings.zone
            )
            if before is None
            else [],
            "line": line,
            "is_first": before is None,
        }
    visit.record("looked at a customer", profile_id=number)
    title = values["name"] or f"Customer {number}"
    return visit.page("person", title, **values)


def _before(text: str) -> Instant | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 18 else None


def _about(visit: Visit, topic: str) -> str:
    if topic == "*":
        return "everything on this channel"
    topics = visit.segue.policy.topics
    return topics[topic].name if topic in topics else topic


def _identifiers(tx: Tx, given: Mapping[str, int]) -> Iterator[ShownIdentifier]:
    used = {one.value for one in channel_addresses(tx, [given["profile"]])}
    for row in tx.conn.execute(_IDENTIFIERS, given):
        note = ""
        if row.is_suppressed:
            note = (
                "nothing is sent to it: it bounced, complained, is not registered any more, or its "
                "owner was erased"
            )
        elif row.is_retired:
            note = "replaced or removed"
        elif row.kind in ("email", "phone", "push_token") and row.value not in used:
            note = "a newer one is used"
        value = row.value
        if row.kind == "push_token":
            value = f"{row.platform or 'app'} …{value[-4:]}"
        yield ShownIdentifier(_KIND.get(row.kind, row.kind), value, note)


def _gone(visit: Visit, into: int | None) -> Response:
    if into is not None:
        return RedirectResponse(f"/people/{into}", 303)
    return visit.notice(404, "There is no such customer", "Perhaps the customer was erased.")
