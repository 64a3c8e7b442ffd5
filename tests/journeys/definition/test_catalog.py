"""Loading a library: an error names the journey, the step and the fix."""

from pathlib import Path

import pytest
from prefect.schedules import Cron
from sqlalchemy import func, insert, select

from config.database.engine import Database
from config.errors import SegueError
from config.policy import Policy, load_policy
from config.settings import ROOT
from journeys.definition.catalog import Catalog, load_catalog
from journeys.definition.journey import Version
from journeys.dsl import (
    SMS,
    Call,
    Email,
    Enter,
    Exit,
    Experiment,
    Goal,
    Journey,
    OnEvent,
    OnLaunch,
    OnSchedule,
    Push,
    Send,
    Split,
    Update,
    Wait,
    WaitUntil,
    arm,
    attribute,
    consented,
    did,
    prop,
    when,
)
from journeys.tables import journey_versions
from tests.support.shop import TEXTS

POLICY = Policy(topics={"news": "News", "promotions": "Offers"})
HEAD = """
from journeys.dsl import *
"""
FINE = """
journey = Journey(
    "fine", entry=OnLaunch(), topic="news", steps=[Send("hello", Email("hello"))]
)
"""


def write(library: Path, folder: str, text: str, **templates: str) -> None:
    """A journey's folder; hello.email.html becomes a keyword as hello_email_html."""
    target = library / folder
    target.mkdir(parents=True, exist_ok=True)
    (target / "journey.py").write_text(HEAD + text, encoding="utf-8")
    files = {"hello.email.html": "Subject: Hello\n\n<p>Hello</p>"}
    files |= {name.replace("_", "."): source for name, source in templates.items()}
    for name, source in files.items():
        (target / name).write_text(source, encoding="utf-8")


def steps(text: str, entry: str = "OnLaunch()", topic: str = "news") -> str:
    """A journey named `broken` with these steps."""
    return f'journey = Journey("broken", entry={entry}, topic="{topic}", steps=[{text}])'


def refused(library: Path) -> str:
    with pytest.raises(SegueError) as caught:
        load_catalog(POLICY, library)
    return str(caught.value)


def test_a_library_with_one_journey_loads(tmp_path: Path) -> None:
    write(tmp_path, "fine", FINE)
    catalog = load_catalog(POLICY, tmp_path)
    assert list(catalog.current) == ["fine"]
    assert list(catalog.segments) == ["everyone"]
    version = catalog.journey("fine")
    assert version.template(version.journey.sends()[0].messages[0]).name == "hello"


def test_the_real_library_loads() -> None:
    catalog = load_catalog(load_policy(ROOT / "config" / "policy.toml"))
    assert {"welcome", "cart-recovery", "win-back"} <= set(catalog.current)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        # in the steps
        (steps('Wait("1h", "a"), Wait("2h", "a")'), ["two steps are named 'a'", "another name="]),
        (steps('Exit("out"), Wait("1h", "b")'), ["'b' can't be reached", "move it into a branch"]),
        (steps(""), ["steps", "at least 1 item"]),
        (
            steps("Wait('1d')", entry="OnEvent('x', oncee=1)"),
            ["line 3", "OnEvent has no argument 'oncee'; it has: event, where"],
        ),
        (steps("Split()"), ["line 3", "Split also needs 'name'"]),
        (steps("Wiat('1d')"), ["line 3", "no 'Wiat' here", "did you mean 'Wait'"]),
        (
            steps(
                'Send("s", Push("hello"), Email("hello"), mode="first", fallback_after="2h",'
                ' unless="delivered")'
            ),
            ["step 's'", "notifications in the app were delivered", 'unless="opened"'],
        ),
        (
            steps(
                'Send("s", SMS("hello"), Email("hello"), mode="first", fallback_after="2h",'
                ' unless="opened")'
            ),
            [
                "journey broken",
                "step 's'",
                "text messages were opened",
                'unless="clicked"',
                "the last",
            ],
        ),
        (
            steps('Send("s", SMS("hello"), Email("hello", after="1h"), stop_on="opened")'),
            [
                "journey broken",
                "step 's'",
                "text messages were opened",
                'stop_on="clicked"',
                "the last",
            ],
        ),
        (
            steps('Send("s", Email("hello"), Email("hello"))'),
            ["step 's'", "same template twice"],
        ),
        (steps('Send("s", Email("hello"), fallback_after="2h")'), ["step 's'", "both or neither"]),
        (
            steps('Send("s", Email("hello"), fallback_after="2h", unless="opened")'),
            ["step 's'", 'mode="first"'],
        ),
        (steps('Send("s")'), ["step 's'", "messages", "at least 1 item"]),
        (steps('Send("s", Email("hello"), mode="some")'), ["step 's'", "mode", "'all'"]),
        (steps('Send("s", Email("hello"), urgent=True)'), ["step 's'", "urgent", "there is no"]),
        (steps('Send("s", Email("hello", on_cap="wait"))'), ["line 3", "on_cap", "'defer'"]),
        (steps('Send("s", Email("hello", after="soon"))'), ["line 3", "after", "as in 90m"]),
        (
            steps('Send("s", Email("hello"), stop_on="converted")'),
            ["journey broken", "step 's'", "goal=Goal(...)"],
        ),
        (steps('Wait("1h", "w", time="09:00")'), ["step 'w'", "give one of them"]),
        (steps('Wait(name="w")'), ["step 'w'", "give one of them"]),
        (steps('Wait(time="9:00", name="w")'), ["step 'w'", "time", "HH:MM"]),
        (steps('Wait(days="moonday", name="w")'), ["step 'w'", "days", "mon-fri"]),
        (steps('Wait("1h", "w", before="1d")'), ["step 'w'", "wait until a date"]),
        (
            steps('WaitUntil("w", did("e"), timeout="0s")'),
            ["step 'w'", "timeout", "more than 0"],
        ),
        (
            steps('Split("f", when(everyone(), []), when(everyone(), []))'),
            ["step 'f'", "need different names"],
        ),
        (
            steps('Split("f", when(everyone(), [], "otherwise"))'),
            ["step 'f'", "need different names"],
        ),
        (
            steps('Experiment("e", arm("a", 1, []), arm("a", 1, []))'),
            ["step 'e'", "different names"],
        ),
        (steps('Experiment("e", arm("a", 0, []))'), ["line 3", "weight", "at least 1"]),
        (steps('Experiment("e", arm("a", 1, []), holdout=100)'), ["step 'e'", "holdout"]),
        (steps('Call("c", "ftp://x")'), ["step 'c'", "url"]),
        (steps('Call("c", "https://x", tries=0)'), ["step 'c'", "tries"]),
        (steps('Update("u")'), ["step 'u'", "attributes"]),
        (
            steps('Update("u", x=1, country="DE")'),
            [
                "journey broken",
                "step 'u'",
                "'country'",
                "is not an attribute",
                "choose another name",
            ],
        ),
        (
            steps('Wait(date="d", name="w", before="1d", after="1d")'),
            ["step 'w'", "exclude each other"],
        ),
        (steps('Wait("1h", "w", after="1d")'), ["step 'w'", "wait until a date"]),
        (steps('Enter("go", "nowhere")'), ["journey broken", "step 'go'", "'nowhere'", "broken"]),
        # in conditions
        (steps('Split("f", when(prop("x") > 1, []))'), ["prop('x')", "attribute('x')"]),
        (steps('WaitUntil("w", prop("x") > 1, timeout="1d")'), ["step 'w'", "attribute('x')"]),
        (steps('Wait("1h")', 'OnEvent("e", attribute("x") > 1)'), ["where", "prop('x')"]),
        (
            steps('Split("f", when(did("a") and did("b"), []))'),
            ["line 3", "join conditions with &"],
        ),
        # in the journey
        (
            steps('Wait("1h")', 'OnSegment("vips")'),
            ["journey broken", "entry", "'vips'", "everyone"],
        ),
        (
            steps('Wait("1h")', 'OnSchedule("0 8 * * *", segment="vips", timezone="UTC")'),
            ["journey broken", "entry", "'vips'", "everyone"],
        ),
        (
            steps('Wait("1h")', 'OnSchedule("0 8 * * *", segment="everyone", timezone="Mars/X")'),
            ["journey broken", "entry", "no time zone 'Mars/X'", "as in Europe/London"],
        ),
        *(
            (
                steps('Wait("1h")', f'OnSchedule("{cron}", segment="everyone", timezone="UTC")'),
                ["journey broken", "entry", f"cron {cron!r}", why, "as in '0 8 * * mon'"],
            )
            for cron, why in (
                ("0 8 * *", "five fields"),
                ("* * * * * *", "five fields"),
                ("@daily", "five fields"),
                ("", "five fields"),
                ("60 8 * * *", "bad minute"),
                ("0 24 * * *", "bad hour"),
                ("0 8 * * moonday", "bad day-of-week"),
                ("0 8 * * fri-mon", "bad day-of-week"),
                ("0 8 30 2 *", "bad day-of-month"),
                ("0 8 LW * *", "bad day-of-month"),
                ("0 8 * * 5L", "bad day-of-week"),
            )
        ),
        (
            steps('Send("s", Email("hello"))', topic="gossip"),
            ["journey broken", "step 's'", "no topic 'gossip'", "news, promotions"],
        ),
        (
            steps('Send("s", Email("hello"), topic="gossip")'),
            ["journey broken", "step 's'", "no topic 'gossip'"],
        ),
        (
            'journey = Journey("Broken One", entry=OnLaunch(), topic="news", steps=[Exit("x")])',
            ["line 3", "name", "pattern"],
        ),
        (
            'journey = Journey("b", entry=OnLaunch(), topic="", steps=[Exit("x")])',
            ["topic", "at least 1"],
        ),
        (
            'journey = Journey("b", entry=OnLaunch(), topic="a", priority=101, steps=[Exit("x")])',
            ["priority", "at most 100"],
        ),
        ("journey = 5", ["it must set journey = Journey(...)"]),
        ("x = 1", ["it must set journey = Journey(...)"]),
        ("journey = Journey(", ["can't be loaded", "SyntaxError"]),
        ("import no_such_module", ["line 3", "can't be loaded", "no_such_module"]),
        ("from journeys.dsl import Emial", ["line 3", "no 'Emial'", "did you mean 'Email'?"]),
        ("from journeys.dsl import Carrier", ["line 3", "no 'Carrier'", "Call, Email, Enter"]),
        (
            "from journeys.definition.steps import Send",
            ["line 3", "no 'Send'", "journeys.definition.steps", "from journeys.dsl import"],
        ),
        ("import journeys.steps", ["line 3", "'journeys.steps'", "from journeys.dsl import"]),
    ],
)
def test_errors_in_a_journey(tmp_path: Path, text: str, says: list[str]) -> None:
    write(tmp_path, "my_folder", text)
    told = refused(tmp_path)
    assert [part for part in says if part not in told] == [], told
    assert "my_folder/journey.py" in told or "journey broken" in told


@pytest.mark.parametrize(
    "text",
    [
        # Nobody waits for the answer to the last of them.
        'Send("s", Email("hello"), SMS("hello"), mode="first", fallback_after="2h",'
        ' unless="opened")',
        'Send("s", Email("hello"), SMS("hello", after="1h"), stop_on="opened")',
        # The shop's own links and app can tell.
        'Send("s", SMS("hello"), Push("hello"), Email("hello"), mode="first", fallback_after="2h",'
        ' unless="clicked")',
        'Send("s", Push("hello"), Email("hello", after="1h"), stop_on="opened")',
    ],
)
def test_evidence_that_a_member_can_report_is_accepted(tmp_path: Path, text: str) -> None:
    templates = {"hello_sms_txt": SMS_TEXT, "hello_push_txt": PUSH_TEXT}
    write(tmp_path, "my_folder", steps(text), **templates)
    assert list(load_catalog(POLICY, tmp_path).current) == ["broken"]


@pytest.mark.parametrize(
    "cron",
    ["0 8 * * mon", "*/15 8-20/2 1-7 JAN-mar *", "0 8 L * *", "30 9 * * 5#2", "5 4 1,15 * sun,7"],
)
def test_accepted_cron_expressions_are_valid_in_prefect(tmp_path: Path, cron: str) -> None:
    entry = f'OnSchedule("{cron}", segment="everyone", timezone="America/New_York")'
    write(tmp_path, "my_folder", steps('Wait("1h")', entry))
    assert list(load_catalog(POLICY, tmp_path).current) == ["broken"]
    assert Cron(cron, timezone="America/New_York").cron == cron


def test_a_stored_version_that_is_invalid_now_still_loads(db: Database) -> None:
    """People are on versions that this Segue would not take: they must be found all the same."""
    group = Send("s", SMS("hello"), Email("hello"), mode="first", fallback_after="2h",
                 unless="opened")  # fmt: skip
    entry = OnSchedule("@daily", segment="gone", timezone="Mars/X")
    old = Version(Journey("j", entry=entry, topic="gone", steps=[group, Enter("e", "j")]), TEXTS)
    with db.transaction() as tx:
        Catalog({"j": old}, {}).register(tx)
        later = Catalog({}, {})
        later.register(tx)
    assert [one.digest for one in later.versions("j")] == [old.digest]


SEND = steps('Send("s", Email("hello"), SMS("hello"), Push("hello"))')
SMS_TEXT, PUSH_TEXT = "Hello", "Title: Hello\n\nHello"


@pytest.mark.parametrize(
    ("templates", "says"),
    [
        ({"hello_push_txt": PUSH_TEXT}, ["hello.sms.txt", "the template does not exist"]),
        ({"hello_sms_txt": SMS_TEXT}, ["hello.push.txt", "the template does not exist"]),
        (
            {"hello_sms_txt": "Hello {{ profile.name", "hello_push_txt": PUSH_TEXT},
            ["hello.sms.txt, line 1", "Liquid"],
        ),
        (
            {"hello_sms_txt": "Hello\n{% if %}x", "hello_push_txt": PUSH_TEXT},
            ["hello.sms.txt, line 2", "Liquid"],
        ),
        (
            {"hello_sms_txt": "{{ event.url }}", "hello_push_txt": PUSH_TEXT},
            ["sms:hello", "{{ event.url }}", "'event' is not available", "group, links, profile"],
        ),
        (
            {"hello_sms_txt": "{{ customer.name }}", "hello_push_txt": PUSH_TEXT},
            ["{{ customer.name }}", "'customer' is not available"],
        ),
        (
            {"hello_sms_txt": "{{ links.shop }}", "hello_push_txt": PUSH_TEXT},
            ["{{ links.shop }}", "no link of that name", "unsubscribe"],
        ),
        (
            {"hello_sms_txt": "{{ profile.name | shout }}", "hello_push_txt": PUSH_TEXT},
            ["hello.sms.txt, line 1", "no Liquid filter 'shout'"],
        ),
        (
            {"hello_sms_txt": SMS_TEXT, "hello_push_txt": "Hello"},
            ["hello.push.txt, line 1", "Title:"],
        ),
        (
            {
                "hello_sms_txt": SMS_TEXT,
                "hello_push_txt": PUSH_TEXT,
                "hello_email_mjml": "Subject: x\n\n<mjml><mj-body></mj-body></mjml>",
            },
            ["hello.email.mjml and hello.email.html", "remove one"],
        ),
    ],
)
def test_errors_in_templates(tmp_path: Path, templates: dict[str, str], says: list[str]) -> None:
    write(tmp_path, "my_folder", SEND, **templates)
    told = refused(tmp_path)
    assert [part for part in ["journey broken", "step 's'", *says] if part not in told] == [], told


def test_a_transactional_mail_has_no_unsubscribe_link(tmp_path: Path) -> None:
    text = 'Send("s", SMS("hello"), kind="transactional")'
    write(tmp_path, "f", steps(text), hello_sms_txt="{{ links.unsubscribe }}")
    assert "no link of that name on this message; there are: preferences" in refused(tmp_path)


def test_templates_may_use_properties_of_the_entry_event(tmp_path: Path) -> None:
    text = steps('Send("s", SMS("hello"))', 'OnEvent("cart_abandoned")')
    write(tmp_path, "f", text, hello_sms_txt="{{ event.url }} {{ profile.x }} {{ brand }}")
    assert list(load_catalog(POLICY, tmp_path).current) == ["broken"]


# Journeys that enter each other -------------------------------------------------------------------


def entering(name: str, *parts: str, entry: str = 'OnLaunch(again="always")') -> str:
    """A journey that does these things and then enters others."""
    told = ", ".join(parts)
    return f'journey = Journey("{name}", entry={entry}, topic="news", steps=[{told}])'


ENTERS = {name: f'Enter("go to {name}", "{name}")' for name in ("a", "b", "c")}


@pytest.mark.parametrize(
    ("journeys", "where"),
    [
        ({"a": [ENTERS["b"]], "b": [ENTERS["a"]]}, "journey a, step 'go to b'"),
        ({"a": [ENTERS["a"]]}, "journey a, step 'go to a'"),
        (
            {"a": ['Update("u", x=1)', ENTERS["b"]], "b": [ENTERS["c"]], "c": [ENTERS["b"]]},
            "journey b, step 'go to c'",
        ),
        # on one way alone, and through what may be over at once
        (
            {
                "a": [
                    f'Split("f", when(everyone(), [{ENTERS["b"]}]), otherwise=[Wait("1d")])',
                    'Exit("x")',
                ],
                "b": [
                    'Send("s", Email("hello"))',
                    'WaitUntil("w", attribute("x") == 1, timeout="1d")',
                    'Wait(days="mon")',
                    'Wait("0s", "no time")',
                    ENTERS["a"],
                ],
            },
            "journey a, step 'go to b'",
        ),
    ],
)
def test_journeys_that_enter_each_other_for_ever(
    tmp_path: Path, journeys: dict[str, list[str]], where: str
) -> None:
    for name, parts in journeys.items():
        write(tmp_path, name, entering(name, *parts))
    told = refused(tmp_path)
    assert told.startswith(where), told
    assert "endless loop" in told
    assert 'Wait("1h")' in told


@pytest.mark.parametrize(
    ("again", "wait"),
    [("once", ""), ("after", ""), ("always", 'Wait("1h"), ')],
    ids=["once", "after a time", "a wait"],
)
def test_journeys_that_may_enter_each_other(tmp_path: Path, again: str, wait: str) -> None:
    rule = "days(1)" if again == "after" else f'"{again}"'
    write(tmp_path, "a", entering("a", ENTERS["b"], entry=f"OnLaunch(again={rule})"))
    write(tmp_path, "b", entering("b", wait + ENTERS["a"]))
    assert list(load_catalog(POLICY, tmp_path).current) == ["a", "b"]


def test_two_journeys_of_one_name(tmp_path: Path) -> None:
    write(tmp_path, "one", FINE)
    write(tmp_path, "two", FINE)
    told = refused(tmp_path)
    assert "two/journey.py" in told
    assert "another journey named 'fine'; rename one of them" in told


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("segments = 5", ["segments.py", "it must set segments = [Segment(...), ...]"]),
        ("segments = [5]", ["segments.py", "it must set segments"]),
        (
            'segments = [Segment("a", "A", everyone()), Segment("a", "B", everyone())]',
            ["'a' is defined twice", "rename one"],
        ),
        ('segments = [Segment("everyone", "A", everyone())]', ["'everyone' is defined twice"]),
        (
            'segments = [Segment("a", "A", prop("x") > 1)]',
            ["line 3", "'a'", "attribute('x')"],
        ),
        ('segments = [Segment("a", "A", "b")]', ["line 3", "segment 'a'", "valid dictionary"]),
        ("segments = [", ["segments.py", "SyntaxError"]),
        ("segments = [Segmnt()]", ["line 3", "no 'Segmnt' here", "'Segment'"]),
    ],
)
def test_errors_in_segments(tmp_path: Path, text: str, says: list[str]) -> None:
    (tmp_path / "segments.py").write_text(f"{HEAD}{text}")
    told = refused(tmp_path)
    assert [part for part in says if part not in told] == [], told


def test_an_unknown_journey_or_segment_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "fine", FINE)
    catalog = load_catalog(POLICY, tmp_path)
    with pytest.raises(SegueError, match="there is no journey 'fin'; did you mean 'fine'"):
        catalog.journey("fin")
    with pytest.raises(SegueError, match="there is no segment 'vips'; there are: everyone"):
        catalog.segment("vips")


# Versions ----------------------------------------------------------------------------------------

EVERYTHING = Journey(
    "everything",
    entry=OnEvent("e", prop("x") >= 2.0, prop("y").one_of(1, "a"), key="id", again="always"),
    exit_when=did("a", at_least=2) & ~consented("sms", "news"),
    goal=Goal.model_validate({"did": did("b"), "within": "5d"}),
    topic="news",
    steps=[
        Wait("36h"),
        Wait(time="09:30", days="mon-wed,sat"),
        Wait(date="birthday", yearly=True, before="3d", time="08:00"),
        Send(
            "s",
            Email("hello", after="5m", on_cap="defer", max_delay="2d"),
            SMS("hello"),
            mode="first",
            fallback_after="2h",
            unless="clicked",
            stop_on="converted",
        ),
        WaitUntil(
            "w", attribute("x").exists(), timeout="1d", then=[Update("u", a=None, b=True, c=1.5)]
        ),
        Split(
            "f",
            when(attribute("x") > 5, [Exit("x", reason="enough")]),
            otherwise=[Send("p", Push("hello"))],
        ),
        Experiment(
            "t", arm("a", 2, [Call("c", "https://example.com", on_error="exit")]), holdout=5
        ),
        Enter("other", "fine"),
    ],
)


def test_a_version_as_json_is_the_same_version(db: Database) -> None:
    version = Version(EVERYTHING, TEXTS)
    with db.transaction() as tx:
        Catalog({"everything": version}, {}).register(tx)
        row = tx.conn.execute(select(journey_versions)).one()
    again = Version.from_definition(row.definition, row.version)
    assert again.journey == version.journey
    assert again.sources == version.sources
    # not only the name it was given: worked out anew it is the same
    assert Version(again.journey, again.sources).digest == version.digest == again.digest
    assert again.journey.graph == version.journey.graph


def test_a_change_of_steps_or_texts_is_another_version() -> None:
    version = Version(EVERYTHING, TEXTS)
    more = EVERYTHING.model_copy(update={"priority": 51})
    assert Version(more, TEXTS).digest != version.digest
    assert Version(EVERYTHING, {**TEXTS, "hello.sms.txt": "Hi"}).digest != version.digest
    assert Version(EVERYTHING, dict(sorted(TEXTS.items(), reverse=True))).digest == version.digest


def test_registering_again_changes_nothing(db: Database) -> None:
    old = Version(EVERYTHING, TEXTS)
    new = Version(EVERYTHING, {**TEXTS, "hello.sms.txt": "Hi"})
    for version in (old, new, new, old):
        catalog = Catalog({"everything": version}, {})
        with db.transaction() as tx:
            catalog.register(tx)
    assert [one.digest for one in catalog.versions("everything")] == [old.digest, new.digest]
    assert catalog.version("everything", new.digest).sources["hello.sms.txt"] == "Hi"
    with db.transaction() as tx:
        assert tx.conn.execute(select(func.count()).select_from(journey_versions)).scalar() == 2


def test_a_journey_that_left_the_library_is_still_known(db: Database) -> None:
    with db.transaction() as tx:
        Catalog({"everything": Version(EVERYTHING, TEXTS)}, {}).register(tx)
        later = Catalog({}, {})
        later.register(tx)
    assert later.journeys() == ["everything"]
    assert len(later.versions("everything")) == 1


def test_a_version_keeps_the_name_it_was_written_under(db: Database) -> None:
    """An older Segue wrote less (a setting was added since): people on it must be found."""
    version = Version(Journey("j", entry=OnLaunch(), topic="news", steps=[Exit("x")]), {})
    definition = version.definition
    del definition["journey"]["priority"]
    with db.transaction() as tx:
        row = {"journey": "j", "version": "written-long-ago", "definition": definition}
        tx.conn.execute(insert(journey_versions).values(**row, created_at=tx.now))
        catalog = Catalog({}, {})
        catalog.register(tx)
    assert [one.digest for one in catalog.versions("j")] == ["written-long-ago"]


def test_a_schedule_is_data_too() -> None:
    entry = OnSchedule("0 8 * * mon", segment="everyone", timezone="Europe/London")
    described = Journey("j", entry=entry, topic="news", steps=[Exit("x")])
    version = Version(described, {})
    assert Version.from_definition(version.definition, "d").journey == described
