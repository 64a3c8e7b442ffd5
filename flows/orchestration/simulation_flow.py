"""A simulation as a Prefect flow: a form, and an artifact with plots and tables."""

import asyncio
from datetime import date
from typing import Annotated, Any

from prefect import Flow, State, flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.states import Completed

from config.settings import load_settings
from flows.launch import MOST_PEOPLE
from flows.orchestration.forms import choice, titled
from flows.orchestration.names import SIMULATION
from flows.orchestration.pages.labels import sentence
from flows.orchestration.pages.simulation_page import simulation_page
from flows.simulate import MOST_DAYS, MOST_SEEDS, answer
from flows.simulation_tables import total
from journeys.definition.catalog import Catalog

ALL_JOURNEYS = "all journeys"
OWN_ENTRY = "its own entry"


def simulation_flow(catalog: Catalog) -> Flow[Any, Any]:
    """The flow; its form lists the journeys and segments of the catalog."""

    async def run(
        journey: str = ALL_JOURNEYS,
        audience: str = OWN_ENTRY,
        days: Annotated[int, titled("How many days", ge=1, le=MOST_DAYS)] = 30,
        limit: Annotated[int, titled("At most this many people", ge=0, le=MOST_PEOPLE)] = 0,
        seeds: Annotated[int, titled("How many runs", ge=1, le=MOST_SEEDS)] = 1,
        opens: Annotated[float | None, _share("Share of messages opened")] = None,
        clicks: Annotated[float | None, _share("Share of messages clicked")] = None,
        buys: Annotated[float | None, _share("Share of people who buy")] = None,
        unsubscribes: Annotated[float | None, _share("Share of messages unsubscribed from")] = None,
        compare: Annotated[str, titled("Compare with")] = "",
        replay: Annotated[date | None, titled("Repeat the past from this day on")] = None,
    ) -> State[Any]:
        """Show what journeys would do, on a copy of the shop; nothing is sent or stored.

        Args:
            journey: The journey, or all journeys together.
            audience: Launch the journey for this segment now, or let profiles enter as they do
                live: by schedule, segment and event.
            limit: The most people that the launch enters; 0 means no limit.
            seeds: Each with different draws; the figures get intervals.
            opens: From 0 to 1; empty: as in the shop's history.
            clicks: From 0 to 1; empty: as in the shop's history.
            buys: From 0 to 1; empty: as in the shop's history.
            unsubscribes: From 0 to 1; empty: as in the shop's history.
            compare: Another policy file (.toml), or another version of the journey.
            replay: Empty: look ahead.
        """
        found = await asyncio.to_thread(
            answer,
            load_settings(),
            journey=None if journey == ALL_JOURNEYS else journey,
            audience=None if audience == OWN_ENTRY else audience,
            days=days,
            people=limit or None,
            seeds=seeds,
            shares={
                "opened": opens,
                "clicked": clicks,
                "bought": buys,
                "unsubscribed": unsubscribes,
            },
            compare=compare or None,
            replay=replay,
        )
        key = f"simulation-{'all' if journey == ALL_JOURNEYS else journey}"
        await acreate_markdown_artifact(simulation_page(found), key, "A simulation")
        told = [f"{total(found, name)} {name.replace('_', ' ')}" for name in _TOLD]
        return Completed(message=f"Nothing was sent or stored. Would be: {sentence(told)}")

    # The choices depend on the catalog.
    run.__annotations__["journey"] = choice("Journey", [ALL_JOURNEYS, *catalog.current])
    run.__annotations__["audience"] = choice("Who enters", [OWN_ENTRY, *catalog.segments])
    about = "Shows what journeys would do in the coming days, on a copy of the shop."
    name = "simulate {journey}, {audience}, {days} days"
    return flow(name=SIMULATION, description=about, flow_run_name=name)(run)


def _share(title: str) -> Any:
    return titled(title, ge=0, le=1)


_TOLD = ("entered", "sent", "not_sent", "unsubscribes")
