"""Find profiles that are one person, as a Prefect flow; an artifact shows why, by waterfalls."""

import asyncio
from typing import Any

from prefect import State, flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.states import Completed

from flows.app import Segue, open_segue
from flows.orchestration.names import DUPLICATES
from flows.orchestration.pages.artifacts import markdown_table

_ABOUT = "Finds profiles that are probably one person, and suggests to join them."
# The suggestions that the artifact explains.
_SHOWN = 10


@flow(name=DUPLICATES, description=_ABOUT, flow_run_name="find duplicates")
async def duplicates_flow() -> State[Any]:
    """Match all profiles by what is known of them, and suggest pairs that are probably one person.

    `segue duplicates` lists the suggestions; a person accepts or refuses each. The policy's
    `[matching]` says from which probability on.
    """
    segue = await asyncio.to_thread(open_segue)
    try:
        message, text = await asyncio.to_thread(_found, segue)
    finally:
        segue.db.close()
    await acreate_markdown_artifact(text, DUPLICATES, "Profiles that are probably one person")
    return Completed(message=message)


def _found(segue: Segue) -> tuple[str, str]:
    """What the run did, and the artifact. The libraries take longer to load than Prefect needs to
    list the flows."""
    from flows.duplicates import find_duplicates
    from flows.waterfall import HEADINGS, rows, waterfall
    from journeys.analytics.plots import as_markdown

    found = find_duplicates(segue)
    message = (
        f"{found.profiles} profiles: {len(found.suggested)} pairs are suggested, "
        f"{found.joined} were joined by the policy"
    )
    parts = ["# Duplicates", message]
    for one in found.suggested[:_SHOWN]:
        title = f"profiles {one.left_id} and {one.right_id}: {one.probability:.2%}"
        picture = waterfall(title, one.bars)
        parts += [
            f"## {one.id}",
            as_markdown(picture, title),
            markdown_table(HEADINGS, rows(one.bars)),
        ]
    if len(found.suggested) > _SHOWN:
        parts.append(f"{len(found.suggested) - _SHOWN} more: `segue duplicates` lists them.")
    return message, "\n\n".join(parts)
