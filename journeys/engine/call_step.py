"""The Call step: POST a user id and the entry's context to a URL.

Enrollments are leased before the request, so after a crash the call is repeated, not lost. The
server can detect a repeat by the `Idempotency-Key` header.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
from sqlalchemy import bindparam, select

from config.access.signatures import SIGNATURE, TIMESTAMP, sign
from config.clock.times import MINUTE, Instant
from config.database.arrays import any_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.database.locking import lock_rows
from config.settings import load_settings
from journeys.definition.journey import Version
from journeys.definition.steps import FAILED, NEXT, CallStep
from journeys.engine.due import DueEnrollment
from journeys.engine.handlers import Move, Moves
from journeys.enrollments import enrollments, transitions
from profiles.tables import identifiers

# The calls of one chunk, which run concurrently.
CALLS_AT_ONCE = 20
# Longer than the time limit of one call, because the calls of a chunk run concurrently.
_LEASE = 2 * MINUTE
_FIRST_RETRY = MINUTE
# The most parts of a response that are read; httpx returns at most 64 KB in one part.
_PARTS = 4


_c = enrollments.c
_ATTEMPTS = (
    select(_c.id, _c.attempts)
    .where(
        any_of(_c.id, "enrollments"),
        in_buckets(_c.bucket),
        _c.version == bindparam("of_version"),
        _c.step == bindparam("at_step"),
        _c.ended_at.is_(None),
    )
    .order_by(_c.id)
    .with_for_update()
)
_CONTEXTS = select(_c.id, _c.context).where(any_of(_c.id, "enrollments"), in_buckets(_c.bucket))
_USER_IDS = select(identifiers.c.profile_id, identifiers.c.value).where(
    any_of(identifiers.c.profile_id, "profiles"), identifiers.c.kind == "user_id"
)


def lease(tx: Tx, people: Sequence[DueEnrollment]) -> None:
    """Reserve the enrollments for this process, for longer than the calls can take."""
    transitions.lease(tx, [person.enrollment_id for person in people], tx.now + _LEASE)


def still_leased(
    tx: Tx, version: Version, step: CallStep, people: Sequence[DueEnrollment]
) -> list[DueEnrollment]:
    """Lock the enrollments that are still leased; returns those at the same step and version.

    An enrollment is not returned if the lease expired and another process took it (`attempts`
    differs), or if it was migrated to another version.
    """
    given = {
        "enrollments": [person.enrollment_id for person in people],
        "of_version": version.digest,
        "at_step": step.name,
    }
    attempts = {row.id: row.attempts for row in lock_rows(tx, _ATTEMPTS, given)}
    return [
        person for person in people if attempts.get(person.enrollment_id) == person.attempts + 1
    ]


def payloads_of(
    tx: Tx, journey: str, step: str, people: Sequence[DueEnrollment]
) -> dict[int, dict[str, Any]]:
    """The JSON body for each enrollment: ids and the entry's context, no contact data."""
    given = {
        "enrollments": [person.enrollment_id for person in people],
        "profiles": {person.profile_id for person in people},
        "buckets": tx.buckets,
    }
    user_ids = {row.profile_id: row.value for row in tx.conn.execute(_USER_IDS, given)}
    contexts = {row.id: row.context for row in tx.conn.execute(_CONTEXTS, given)}
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
    """Post all payloads concurrently, signed; returns the errors by enrollment id.

    now: the time in the signature. within: the total time limit of each call, in seconds.
    """
    if refusal := _refusal(step.url):
        return dict.fromkeys(payloads, refusal)
    return asyncio.run(_post_all(step, payloads, now, within))


async def _post_all(
    step: CallStep, payloads: dict[int, dict[str, Any]], now: Instant, within: float
) -> dict[int, str]:
    secret = load_settings().call_secret
    path = httpx.URL(step.url).raw_path.decode()
    extensions = {} if _is_allowed(step.url) else {"trace": _check_address}

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
                    extensions=extensions,
                ) as response,
            ):
                # Read a short response to its end, so that the connection can be reused.
                parts = 0
                async for _ in response.aiter_raw():
                    parts += 1
                    if parts == _PARTS:
                        break
        except Exception as error:  # any error fails this call only
            return type(error).__name__
        return None if response.is_success else f"status {response.status_code}"

    # trust_env=False ignores the environment's proxies, which would hide the address that a call
    # connects to. create_ssl_context still uses the environment's certificates.
    tls = httpx.create_ssl_context()
    async with httpx.AsyncClient(
        timeout=within, follow_redirects=False, trust_env=False, verify=tls
    ) as client:
        errors = await asyncio.gather(*map(post, payloads))
    return {
        enrollment_id: error
        for enrollment_id, error in zip(payloads, errors, strict=True)
        if error is not None
    }


def call_moves(
    tx: Tx, step: CallStep, people: Sequence[DueEnrollment], failed: dict[int, str]
) -> Moves:
    """Move enrollments on after a successful call; retry the others, then apply `on_error`.

    failed: the error by enrollment id. Retries wait one minute, then twice as long each time.
    """
    moves: Moves = {}
    for person in people:
        tried = person.attempts + 1
        if person.enrollment_id not in failed:
            moves[person.enrollment_id] = Move(NEXT)
        elif tried < step.tries:
            moves[person.enrollment_id] = Move(
                None, due_at=tx.now + _FIRST_RETRY * 2**person.attempts, phase=0
            )
        elif step.on_error == "exit":
            moves[person.enrollment_id] = Move(f"exit: call failed, {failed[person.enrollment_id]}")
        else:
            moves[person.enrollment_id] = Move(FAILED)
    return moves


def _is_allowed(url: str) -> bool:
    return urlsplit(url).hostname in load_settings().call_hosts


def _refusal(url: str) -> str | None:
    """Why a URL may not be called; None: it may.

    A host must resolve, to public addresses only unless SEGUE_CALL_HOSTS lists it.
    """
    host = urlsplit(url).hostname or ""
    if _is_allowed(url):
        return None
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        return f"no such host {host}"
    if all(_is_public(address[4][0]) for address in found):
        return None
    return f"{host} has a private address; to allow it, add the host to SEGUE_CALL_HOSTS"


def _is_public(address: str | int) -> bool:
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if inner is not None:
            return _is_public(str(inner))
    return found.is_global and not (found.is_multicast or found.is_reserved)


async def _check_address(event: str, about: Mapping[str, Any]) -> None:
    """Close a connection to a private address before anything is sent (httpx trace hook).

    It repeats the check of `_refusal`, because the host name may resolve differently now (DNS
    rebinding). Raises httpx.ConnectError.
    """
    if event == "connection.connect_tcp.complete":
        connection = about["return_value"]
        if not _is_public(connection.get_extra_info("server_addr")[0]):
            await connection.aclose()
            raise httpx.ConnectError("a private address")
