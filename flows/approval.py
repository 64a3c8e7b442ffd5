"""Ask for the approval of a launch with a dry run as its summary, and decide about it."""

from flows.app import Segue
from flows.dry_run import DryRunReport, as_json, dry_run
from journeys.launches.approvals import (
    ApprovalNeeded,
    ApprovalResult,
    ApprovalRow,
    LaunchRequest,
    approval_of,
    approve,
    ask,
    check_approval,
    reject,
)
from journeys.launches.launching import audience_size, size_to_approve
from journeys.simulation.clock import SimulatedShop
from journeys.simulation.copy import snapshot


def rehearse(segue: Segue, request: LaunchRequest) -> DryRunReport:
    """A dry run of a launch. Raises SegueError for an unknown journey or segment."""
    shop = SimulatedShop(catalog=segue.catalog, policy=segue.policy, settings=segue.settings)
    with snapshot(segue.db) as tx:
        return dry_run(tx, shop, request.journey, request.audience, request.people)


def missing_approval(segue: Segue, request: LaunchRequest) -> ApprovalNeeded | None:
    """What a launch waits for; None: it may start.

    Raises SegueError as `start_launch`.
    """
    size = size_to_approve(segue.engine, request)
    version = segue.catalog.journey(request.journey)
    try:
        with segue.db.transaction(write=False) as tx:
            check_approval(tx, segue.policy.approval, version, request, size)
    except ApprovalNeeded as needed:
        return needed
    return None


def ask_for_approval(
    segue: Segue, needed: ApprovalNeeded, report: DryRunReport | None = None
) -> ApprovalRow:
    """Store a launch that has to wait, with the report of a dry run; returns the stored request.

    report: None: make one, unless the request is stored already.
    """
    if needed.row is not None:
        return needed.row
    request = needed.request
    report = report or rehearse(segue, request)
    with segue.db.transaction() as tx:
        return ask(
            tx,
            segue.policy.approval,
            segue.catalog.journey(request.journey),
            needed,
            size=report.audience,
            summary=as_json(request.journey, request.audience, report),
        )


def approve_launch(segue: Segue, launch_id: str, by: str) -> ApprovalResult:
    """Approve a launch; whoever changed the row starts it. Raises SegueError as `approve`."""
    with segue.db.transaction(write=False) as tx:
        row = approval_of(tx, launch_id)
    size = 0 if row is None else audience_size(segue.engine, row.audience)
    with segue.db.transaction() as tx:
        return approve(tx, segue.catalog, launch_id, by, size)


def reject_launch(segue: Segue, launch_id: str, by: str, reason: str) -> ApprovalResult:
    """Reject a launch. Raises SegueError as `reject`."""
    with segue.db.transaction() as tx:
        return reject(tx, launch_id, by, reason)
