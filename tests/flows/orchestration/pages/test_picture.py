"""The picture of a journey, as Mermaid source."""

from collections import Counter

from flows.orchestration.pages.counts import JourneyCounts
from flows.orchestration.pages.picture import mermaid
from journeys.dsl import (
    Email,
    Exit,
    Journey,
    OnLaunch,
    Send,
    Split,
    Wait,
    WaitUntil,
    attribute,
    did,
    when,
)

JOURNEY = Journey(
    "sample",
    entry=OnLaunch(),
    topic="promotions",
    steps=[
        Send("hello", Email("hello")),
        WaitUntil("came", did("came"), timeout="1d", then=[Exit("leave", reason="came")]),
        Split('a "good" one?', when(attribute("spent") > 100, [Wait("1h")], "yes & more")),
    ],
)


def test_the_picture_has_every_step_and_every_way() -> None:
    assert mermaid(JOURNEY).splitlines() == [
        "flowchart TD",
        '  start(["launch"])',
        '  s0["hello"]',
        '  s1(["came"])',
        '  s2["leave"]',
        '  s3{"a #quot;good#quot; one?"}',
        '  s4(["wait 1h"])',
        '  done(["end"])',
        "  start --> s0",
        "  s0 --> s1",
        "  s1 --> s2",
        '  s1 -->|"timeout"| s3',
        "  s2 --> done",
        '  s3 -->|"yes #amp; more"| s4',
        '  s3 -->|"otherwise"| done',
        "  s4 --> done",
        "  classDef send fill:#dbeafe,stroke:#2563eb,color:#111827",
        "  class s0 send",
    ]


def test_the_picture_has_the_counts() -> None:
    counts = JourneyCounts(
        entered=1500,
        here=Counter({"came": 1200}),
        passed=Counter(
            {
                ("hello", "next"): 1500,
                ("came", "next"): 100,
                ("came", "timeout"): 200,
                ("leave", "exit: came"): 100,
            }
        ),
    )
    lines = [line.strip() for line in mermaid(JOURNEY, counts).splitlines()]
    assert 'start(["launch<br/>1,500 entered"])' in lines
    assert 's1(["came<br/>1,200 here"])' in lines
    assert 's0 -->|"1,500"| s1' in lines
    assert 's1 -->|"100"| s2' in lines
    assert 's1 -->|"timeout 200"| s3' in lines
    assert 's2 -->|"100"| done' in lines
    assert 's3 -->|"otherwise"| done' in lines, "a way that nobody took has no count"
