"""`segue check` finds everything at once, in its own words, with a suggestion."""

import shutil
from pathlib import Path

import pytest

from config.settings import ROOT
from tests.support.commands import Segue
from tests.support.shop import House

JOURNEY = """
from journeys.dsl import Email, Journey, OnEvent, Send, Split, WaitUntil, attribute, consented
from journeys.dsl import days, did, when

journey = Journey(
    "reviews",
    entry=OnEvent("order_completed"),
    topic="{topic}",
    steps=[
        WaitUntil("reviewed", did("{event}"), timeout=days(1)),
        Split("who", when({condition}, [Send("ask", Email("{template}"))])),
    ],
)
"""
GOOD = {
    "topic": "orders",
    "event": "review_left",
    "condition": 'attribute("lifetime_value") > 1',
    "template": "ask",
}


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "library"
    (folder / "reviews").mkdir(parents=True)
    monkeypatch.setenv("SEGUE_LIBRARY", str(folder))
    write(folder)
    return folder


def write(library: Path, text: str = "{{ profile.first_name }}", **parts: str) -> None:
    folder = library / "reviews"
    (folder / "journey.py").write_text(JOURNEY.format(**{**GOOD, **parts}))
    (folder / "ask.email.html").write_text(f"Subject: Ask\n\n<p>{text}</p>")


@pytest.fixture
def shop(house: House) -> House:
    """A shop with the library's own policy, customers and events."""
    house.open()
    ann = house.customer("ann", attributes={"first_name": "Ann", "lifetime_value": 5})
    for event in ("order_completed", "review_left"):
        house.did(ann, event)
    return house


def warnings(said: str) -> list[str]:
    return [line.removeprefix("warning: ") for line in said.splitlines()]


def test_what_everybody_knows_is_no_warning(shop: House, library: Path, segue: Segue) -> None:
    said = segue("check")
    assert (said.status, said.err) == (0, "")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            {"text": "{{ profile.frist_name | default: 'you' }}"},
            "journey reviews, template 'ask' of email: no customer has the attribute "
            "'frist_name'; did you mean 'first_name'?",
        ),
        (
            {"event": "reviw_left"},
            "journey reviews: no event 'reviw_left' has arrived; did you mean 'review_left'?",
        ),
        (
            {"condition": 'consented("sms", "ordrs")'},
            "journey reviews: the policy has no topic 'ordrs'; did you mean 'orders'?",
        ),
        (
            {"condition": 'attribute("lifetimevalue") > 1'},
            "journey reviews: no customer has the attribute 'lifetimevalue'; did you mean "
            "'lifetime_value'?",
        ),
        (
            {"condition": 'attribute("zodiac.sign") > 1'},
            "journey reviews: no customer has the attribute 'zodiac'",
        ),
    ],
)
def test_a_name_that_nothing_knows(
    shop: House, library: Path, segue: Segue, parts: dict[str, str], words: str
) -> None:
    write(library, **parts)
    said = segue("check")
    assert said.status == 0
    assert warnings(said.err) == [words]


def test_without_data_only_likely_mistakes_are_warned_of(
    house: House, library: Path, segue: Segue
) -> None:
    house.open()
    write(library, "{{ profile.frist_name }} {{ profile.shoe_size }}")
    [warning] = warnings(segue("check").err)
    assert "'frist_name'; did you mean 'first_name'?" in warning


def test_misspelt_settings_and_files(
    shop: House, library: Path, segue: Segue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGUE_RECIEVER_PORT", "8080")
    monkeypatch.setenv("SEGUE_XYZZY", "1")
    monkeypatch.setenv("SEGUE_TWILIO_FORM", "+4477")
    monkeypatch.setenv("SEGUE_EMAIL_PROVIDER_BY_TOPIC", "{}")
    (library / "segmnts.py").write_text("segments = []")
    (library / "reviews" / "ask.emial.html").write_text("x")
    (library / "reviews" / "aks.email.txt").write_text("x")
    (library / "cart").mkdir()
    (library / "cart" / "jurney.py").write_text("x")
    assert warnings(segue("check").err) == [
        "SEGUE_RECIEVER_PORT is no setting; did you mean SEGUE_RECEIVER_PORT?",
        "SEGUE_TWILIO_FORM is no setting; did you mean SEGUE_TWILIO_FROM?",
        "SEGUE_XYZZY is no setting",
        f"{library}/cart has no journey.py, so it is no journey; rename jurney.py",
        f"{library}/reviews/aks.email.txt is not used; did you mean ask.email.txt?",
        f"{library}/reviews/ask.emial.html is not used; did you mean ask.email.html?",
        f"{library}/segmnts.py is not used; did you mean segments.py?",
    ]


def test_all_errors_at_once(shop: House, library: Path, segue: Segue) -> None:
    for name in ("latin", "broken"):
        shutil.copytree(library / "reviews", library / name)
        text = (library / name / "journey.py").read_text().replace('"reviews"', f'"{name}"')
        (library / name / "journey.py").write_text(text)
    (library / "latin" / "ask.email.html").write_bytes("Subject: Olé\n\nOlé".encode("latin-1"))
    (library / "broken" / "journey.py").write_text("journey = Jurney(")
    (library / "segments.py").write_text("segments = 3")
    said = segue("check")
    assert said.status == 1
    assert said.out == ""
    lines = said.err.splitlines()
    assert (
        f"segue: {library}/latin/ask.email.html, line 1: not UTF-8; save the file as UTF-8" in lines
    )
    assert any(f"{library}/broken/journey.py" in line for line in lines)
    assert any("segments.py: it must set segments" in line for line in lines)
    assert len([line for line in lines if line.startswith("segue: ")]) == 3
    assert "Traceback" not in said.err


def test_faults_of_valid_journeys_at_once(shop: House, library: Path, segue: Segue) -> None:
    write(library, "{{ profil.first_name }}", topic="ordrs")
    said = segue("check")
    assert said.status == 1
    assert "the policy has no topic 'ordrs'; did you mean 'orders'? it has: " in said.err
    assert "'profil' is not available here" in said.err
    assert said.err.count("segue: journey reviews") == 2


def test_the_library_of_the_repository_has_no_warning(house: House, segue: Segue) -> None:
    house.open()
    assert (ROOT / "journeys" / "library").is_dir()
    assert segue("check").err == ""


def errors(said: str) -> list[str]:
    lines = [line.removeprefix("segue: ") for line in said.splitlines()]
    return [line for line in lines if not line.startswith("warning: ")]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "SEGUE_SMS_PROVIDER",
            "twilo",
            "SEGUE_SMS_PROVIDER names 'twilo', which is no provider of sms; did you mean 'twilio'?",
        ),
        (
            "SEGUE_EMAIL_PROVIDER_BY_TOPIC",
            '{"orders": "postmrk"}',
            "SEGUE_EMAIL_PROVIDER_BY_TOPIC names 'postmrk', which is no provider of email; "
            "did you mean 'postmark'?",
        ),
        (
            "SEGUE_RATES",
            '{"emial": 5}',
            "SEGUE_RATES names 'emial', which is no channel and no provider in use; did you mean "
            "'email'?",
        ),
        ("SEGUE_PROVIDERS", "live", "SEGUE_PROVIDERS is live, but SEGUE_SECRET_KEY"),
    ],
)
def test_a_wrong_provider(
    shop: House,
    library: Path,
    segue: Segue,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    words: str,
) -> None:
    monkeypatch.setenv(name, value)
    said = segue("check")
    assert said.status == 1
    [error] = errors(said.err)
    assert error.startswith(words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"timezone = = 1", "line 1: not valid TOML (Invalid value): 'timezone = = 1'; write "),
        (b"# Ol\xe9\n", "line 1: not UTF-8; save the file as UTF-8"),
        (b"timezon = 'UTC'", ": there is no 'timezon' here; did you mean 'timezone'? there are: "),
        (
            b"[channels.emial]",
            "channels.emial: there is no channel 'emial'; did you mean 'email'? ",
        ),
        (b"[channels.email]\nwindws = []", "channels.email: there is no 'windws' here; did you "),
        (b"holdout_percent = 'x'", ": holdout_percent: it must be a number"),
        (
            b"[topics]\na = 'A'\n[[caps]]\nchannels = 'all'\nlimit = 1\nper = 'day'\ntopic = 'b'",
            "no topic 'b'",
        ),
    ],
)
def test_a_broken_policy(
    shop: House,
    library: Path,
    segue: Segue,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    content: bytes,
    words: str,
) -> None:
    file = tmp_path / "policy.toml"
    file.write_bytes(content)
    monkeypatch.setenv("SEGUE_POLICY_FILE", str(file))
    monkeypatch.setenv("SEGUE_RATES", '{"emial": 5}')
    said = segue("check")
    assert said.status == 1
    about_rates, about_policy = errors(said.err)
    assert about_rates.startswith("SEGUE_RATES names 'emial'")
    assert about_policy.startswith(str(file))
    assert words in about_policy


def test_names_are_warned_of_beside_errors(shop: House, library: Path, segue: Segue) -> None:
    write(library, "{{ profile.frist_name }}", topic="ordrs")
    said = segue("check")
    assert said.status == 1
    assert [one for one in warnings(said.err) if "'frist_name'; did you mean 'first_name'?" in one]


def test_usual_names_are_suggested_before_anything_is_seen(
    house: House, library: Path, segue: Segue
) -> None:
    house.open()
    write(library, event="cart_viewd", condition='attribute("lifetme_value") > 1')
    assert warnings(segue("check").err) == [
        "journey reviews: no event 'cart_viewd' has arrived; did you mean 'cart_viewed'?",
        "journey reviews: no customer has the attribute 'lifetme_value'; did you mean "
        "'lifetime_value'?",
    ]


def test_a_library_that_does_not_exist(
    house: House, segue: Segue, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.open()
    monkeypatch.setenv("SEGUE_LIBRARY", "nowhere")
    said = segue("check")
    assert said.status == 1
    assert errors(said.err) == ["the folder nowhere does not exist; set SEGUE_LIBRARY"]
