"""Call steps: POST a person to a URL. Leased first, so that a crash repeats the call, not loses it.

The receiver can tell a repeat by the `Idempotency-Key` header.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
from sqlalchemy import select

from config.access.signatures import SIGNATURE, TIMESTAMP, sign
from config.database import Tx
from config.settings import load_settings
from config.times import MINUTE, Instant
from journeys.definition.journey import Version
from journeys.definition.steps import FAILED, NEXT, CallStep
from journeys.engine.due import Standing
from journeys.engine.handlers import Move, Moves
from journeys.enrollments import enrollments, transitions
from profiles.tables import identifiers

CALLS_AT_ONCE = 20
# Long enough for a chunk of calls that all time out.
_LEASE = 2 * MINUTE
_FIRST_RETRY = MINUTE
# So much is read of an answer at most; a part has 64 KB or less.
_PARTS = 4


def lease(tx: Tx, people: Sequence[Standing]) -> None:
    """Keep others away from these people while the calls are under way."""
    transitions.lease(tx, [person.enrollment_id for person in people], tx.now + _LEASE)


def still_leased(
    tx: Tx, version: Version, step: CallStep, people: Sequence[Standing]
) -> list[Standing]:
    """Those who stand where they stood, in the same version.

    A process that slept through its lease comes too late; whom somebody moved to another version
    meanwhile goes on by that one's rules.
    """
    found = (
        select(enrollments.c.id, enrollments.c.attempts)
        .where(
            enrollments.c.id.in_([person.enrollment_id for person in people]),
            enrollments.c.version == version.digest,
            enrollments.c.step == step.name,
            enrollments.c.ended_at.is_(None),
        )
        .order_by(enrollments.c.id)
        .with_for_update()
    )
    attempts = {row.id: row.attempts for row in tx.conn.execute(found)}
    return [
        person for person in people if attempts.get(person.enrollment_id) == person.attempts + 1
    ]


def payloads_of(
    tx: Tx, journey: str, step: str, people: Sequence[Standing]
) -> dict[int, dict[str, Any]]:
    """What is posted for each enrollment: ids and the entry's context, no contact data."""
    user_ids = {
        row.profile_id: row.value
        for row in tx.conn.execute(
            select(identifiers.c.profile_id, identifiers.c.value).where(
                identifiers.c.profile_id.in_({person.profile_id for person in people}),
                identifiers.c.kind == "user_id",
            )
        )
    }
    contexts = {
        row.id: row.context
        for row in tx.conn.execute(
            select(enrollments.c.id, enrollments.c.context).where(
                enrollments.c.id.in_([person.enrollment_id for person in people])
            )
        )
    }
    return {
        person.enrollment_id: {
            "journey": journey,
            "step": step,
            "enrollment_id": person.enrollment_id,
            "user_id": user_ids.get(person.profile_id),
            "event": contexts[person.enrollment_id],
        }
        for person in people
    }


def post_all(
    step: CallStep, payloads: dict[int, dict[str, Any]], now: Instant, within: float
) -> dict[int, str]:
    """Post each payload, all at once, signed; returns what went wrong, by enrollment.

    within: seconds from the first to the last byte of a call.
    """
    if refused := _refusal(step.url):
        return dict.fromkeys(payloads, refused)
    return asyncio.run(_post_all(step, payloads, now, within))


async def _post_all(
    step: CallStep, payloads: dict[int, dict[str, Any]], now: Instant, within: float
) -> dict[int, str]:
    secret = load_settings().call_secret
    path = httpx.URL(step.url).raw_path.decode()
    watched = {} if _is_allowed(step.url) else {"trace": _stays_out}

    async def post(enrollment_id: int) -> str | None:
        body = orjson.dumps(payloads[enrollment_id])
        headers = {
            "content-type": "application/json",
            "idempotency-key": f"{enrollment_id}:{step.name}",
            TIMESTAMP: str(now),
            SIGNATURE: sign(secret, str(now), path, body),
        }
        try:
            async with (
                asyncio.timeout(within),
                client.stream(
                    "POST",
                    step.url,
                    content=body,
                    headers=headers,
                    extensions=watched,
                ) as answer,
            ):
                # A short answer is read to its end: then the connection serves for another call.
                parts = 0
                async for _ in answer.aiter_raw():
                    parts += 1
                    if parts == _PARTS:
                        break
        except Exception as error:  # whatever it is, it is this call's
            return type(error).__name__
        return None if answer.is_success else f"status {answer.status_code}"

    # Past the proxies of the environment, which would hide from us where a call leads; but with the
    # certificates that it names.
    tls = httpx.create_ssl_context()
    async with httpx.AsyncClient(
        timeout=within, follow_redirects=False, trust_env=False, verify=tls
    ) as client:
        wrong = await asyncio.gather(*map(post, payloads))
    return {one: why for one, why in zip(payloads, wrong, strict=True) if why is not None}


def call_moves(tx: Tx, step: CallStep, people: Sequence[Standing], failed: dict[int, str]) -> Moves:
    """On with those who were posted; the others are tried again, then take `on_error`."""
    moves: Moves = {}
    for person in people:
        tried = person.attempts + 1
        if person.enrollment_id not in failed:
            moves[person.enrollment_id] = Move(NEXT)
        elif tried < step.tries:
            moves[person.enrollment_id] = Move(None, tx.now + _FIRST_RETRY * 2**person.attempts, 0)
        elif step.on_error == "exit":
            moves[person.enrollment_id] = Move(f"exit: call failed, {failed[person.enrollment_id]}")
        else:
            moves[person.enrollment_id] = Move(FAILED)
    return moves


def _is_allowed(url: str) -> bool:
    return urlsplit(url).hostname in load_settings().call_hosts


def _refusal(url: str) -> str | None:
    """Why a URL is not called: it leads into our own network. None when it does not."""
    host = urlsplit(url).hostname or ""
    if _is_allowed(url):
        return None
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        return f"no such host {host}"
    if all(_is_public(address[4][0]) for address in found):
        return None
    return f"{host} is a private address; allow it by name in SEGUE_CALL_HOSTS"


def _is_public(address: str | int) -> bool:
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if inner is not None:
            return _is_public(str(inner))
    return found.is_global and not (found.is_multicast or found.is_reserved)


async def _stays_out(event: str, about: Mapping[str, Any]) -> None:
    """Looks at the address once more when it is connected to: by then the name may lead elsewhere.

    Nothing has been sent yet.
    """
    if event == "connection.connect_tcp.complete":
        connection = about["return_value"]
        if not _is_public(connection.get_extra_info("server_addr")[0]):
            await connection.aclose()
            raise httpx.ConnectError("a private address")
