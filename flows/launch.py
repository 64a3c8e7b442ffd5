"""A launch from the command line: the same steps as the journey's Prefect flow, without Prefect."""

import asyncio
import uuid
from typing import Any

from config.channels import by_channel
from config.clock.times import format_instant
from flows.app import Segue
from flows.approval import ask_for_approval, rehearse
from flows.dry_run import as_json
from flows.worker.leasing import leasing
from journeys.engine.turn import Turn
from journeys.launches.approvals import ApprovalNeeded, ApprovalRow, LaunchRequest
from journeys.launches.launching import enter_audience, start_launch
from journeys.operations.counts import summarise

# The highest limit that a launch accepts; a launch without a limit may enter more.
MOST_PEOPLE = 10_000_000


def launch(
    segue: Segue,
    journey: str,
    audience: str,
    *,
    people: int | None = None,
    launch_id: str | None = None,
) -> dict[str, Any]:
    """Enter an audience, move due enrollments, send due messages; returns the counts.

    A launch that needs an approval is stored with its summary, which is returned, and nobody
    enters. A repeated `launch_id` continues that launch, and enters nobody twice. Raises SegueError
    for an unknown journey or segment, for a launch that was not approved, and for missing
    credentials.
    """
    launch_id = launch_id or str(uuid.uuid4())
    try:
        asyncio.run(_enter_and_work_off(segue, journey, audience, people, launch_id))
    except ApprovalNeeded as needed:
        return _waiting(ask_for_approval(segue, needed))
    with segue.db.transaction(write=False) as tx:
        summary = summarise(tx, journey, launch_id)
    return {
        "launch": launch_id,
        "journey": journey,
        "audience": audience,
        "entered": summary.entered,
        "sent": by_channel(summary.sent),
        "planned": by_channel(summary.planned),
        "not_sent": dict(sorted(summary.not_sent.items())),
    }


def _waiting(row: ApprovalRow) -> dict[str, Any]:
    return {
        "launch": row.launch_id,
        "journey": row.journey,
        "audience": row.audience,
        "waits_for_approval": row.why,
        "until": format_instant(row.lapses_at),
        "summary": row.summary,
    }


async def _enter_and_work_off(
    segue: Segue, journey: str, audience: str, people: int | None, launch_id: str
) -> None:
    # First, so that no profile enters if credentials are missing.
    async with segue.dispatcher() as dispatcher:
        await asyncio.to_thread(_enter, segue, journey, audience, people, launch_id)
        async with leasing(segue, journey) as leases:
            turn = Turn(segue.engine, dispatcher, journey=journey, leased=leases.held)
            await turn.until_idle()


def _enter(segue: Segue, journey: str, audience: str, people: int | None, launch_id: str) -> None:
    version = start_launch(segue.engine, launch_id, journey, audience, people)
    for _ in enter_audience(segue.engine, version, audience, launch_id, people):
        pass


def launch_dry_run(
    segue: Segue, journey: str, audience: str, *, people: int | None = None
) -> dict[str, Any]:
    """A dry run: what a launch would do, without storing anything. Raises as `launch`."""
    report = rehearse(
        segue, LaunchRequest(id="", journey=journey, audience=audience, people=people)
    )
    return as_json(journey, audience, report)
