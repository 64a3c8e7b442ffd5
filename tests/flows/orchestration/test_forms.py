"""The texts of the forms, and of the deployments."""

from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema

from flows.orchestration.forms import CONTINUE, described, run_name, with_segments
from flows.orchestration.library import CATALOG, FLOWS
from flows.orchestration.names import DUPLICATES
from journeys.dsl import Segment, attribute

VIPS = Segment("vips", "Spent a lot.", attribute("spent") > 100)
LAPSED = Segment("lapsed", "Ordered long ago", attribute("spent") > 0)


def schema_of(flow: str) -> dict[str, Any]:
    return parameter_schema(FLOWS[flow]).model_dump()


# Flows that ask for nothing.
WITHOUT_FIELDS = {DUPLICATES}


@pytest.mark.parametrize("flow", sorted(FLOWS))
def test_each_field_has_a_title_in_words(flow: str) -> None:
    fields = schema_of(flow)["properties"]
    assert bool(fields) == (flow not in WITHOUT_FIELDS)
    for name, field in fields.items():
        assert field["title"][0].isupper(), name
        assert "_" not in field["title"]


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({}, f"win-back: {CONTINUE}"),
        ({"audience": "lapsed", "limit": 0, "dry_run": False}, "win-back: lapsed"),
        (
            {"audience": "best-customers", "limit": 20, "dry_run": True},
            "win-back: best-customers, at most 20 people, dry run",
        ),
        ({"audience": "lapsed", "limit": 1}, "win-back: lapsed, at most 1 person"),
    ],
)
def test_a_run_is_named_after_what_it_does(parameters: dict[str, Any], name: str) -> None:
    assert run_name("win-back", parameters) == name


@pytest.mark.parametrize("flow", ["win-back", "simulate"])
def test_a_form_offers_the_segments_of_today_with_their_sizes(flow: str) -> None:
    schema = schema_of(flow)
    first = schema["properties"]["audience"]["enum"][0]
    changed = with_segments(schema, [VIPS, LAPSED], {"vips": 1, "lapsed": 12_000})
    audience = changed["properties"]["audience"]
    assert audience["enum"] == [first, "vips", "lapsed"]
    assert audience["description"].endswith(
        "Segments: vips (1 person): Spent a lot. lapsed (12,000 people): Ordered long ago."
    )
    assert "Every customer" not in audience["description"]
    assert with_segments(changed, [VIPS, LAPSED], {"vips": 1, "lapsed": 12_000}) == changed
    known = CATALOG.segments.values()
    assert with_segments(changed, known, {})["properties"]["audience"]["enum"] == [
        first,
        *CATALOG.segments,
    ]


def test_a_deployment_says_that_its_journey_is_held() -> None:
    running = {"description": "Wins back.\n\nMore.", "tags": ["segue", "promotions"]}
    paused = described(running, "paused")
    assert paused["description"] == (
        "> **Paused**: nothing moves and nothing is sent. To go on: `pause-resume-stop`, "
        "`resume`.\n\nWins back.\n\nMore."
    )
    assert paused["tags"] == ["segue", "promotions", "paused"]
    assert described(paused, "paused") == paused
    stopped = described(paused, "stopped")
    assert stopped["tags"] == ["segue", "promotions", "stopped"]
    assert stopped["description"].startswith("> **Stopped**: nobody enters and nothing is sent.")
    assert described(stopped, None) == running
