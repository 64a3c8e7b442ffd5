"""Chapter 1: a journey is a folder. Write it, import customers, launch it, read the result.

The folder contains `journey.py` and the templates. Segue finds it without registration.
"""

from pathlib import Path

from channels.explain import history_of
from config.policy import Policy
from profiles.imports.importer import import_file
from tests.support.shop import House
from tests.tutorial.conftest import Library

JOURNEY = """
    from journeys.dsl import Email, Journey, OnLaunch, Send

    journey = Journey(
        "spring-news",
        entry=OnLaunch(),
        topic="news",
        steps=[Send("the news", Email("news"))],
    )
"""
# A template says what it needs, and what to say where that is missing.
TEMPLATE = """
    Subject: Spring at {{ brand }}

    <p>Dear {{ profile.first_name | default: 'customer' }}, the tulips are in.</p>
    <p><a href="{{ links.unsubscribe }}">Unsubscribe</a></p>
"""
CUSTOMERS = """\
customer_id,first_name,email,country,email_opt_in
ann,Ann,ann@example.com,GB,yes
bob,,bob@example.com,GB,yes
cleo,Cleo,,GB,yes
dan,Dan,dan@example.com,GB,no
"""
# Which column is what.
COLUMNS = """
    [columns]
    user_id = "customer_id"
    email = "email"
    country = "country"

    [attributes]
    first_name = "first_name"

    [consent]
    "email.*" = "email_opt_in"
"""


def test_from_a_folder_to_the_inbox(
    shop: House, library: Library, policy: Policy, tmp_path: Path
) -> None:
    library.write("spring_news/journey.py", JOURNEY)
    library.write("spring_news/news.email.html", TEMPLATE)
    segue = shop.open_library(library.path, policy)

    customers = tmp_path / "customers.csv"
    customers.write_text(CUSTOMERS)
    library.write("columns.toml", COLUMNS)
    report = import_file(segue.db, customers, map_file=library.path / "columns.toml")
    assert (report.created, report.refused) == (4, 0)

    # `segue launch spring-news --audience everyone`
    result = shop.launch("spring-news", "everyone")
    assert result["entered"] == 4
    assert result["sent"] == {"email": 2, "sms": 0, "push": 0}
    assert result["not_sent"] == {"no_address": 1, "no_consent": 1}

    # It is Monday 10:00, the window is open: two mails have been handed over.
    assert [(mail.to, mail.text) for mail in shop.providers.accepted] == [
        ("ann@example.com", "Spring at The Shop"),
        ("bob@example.com", "Spring at The Shop"),
    ]

    # `segue explain cleo`: there is a row for everyone, and it says why.
    with segue.db.transaction(write=False) as tx:
        [cleos] = history_of(tx, "cleo")
        [dans] = history_of(tx, "dan@example.com")
    assert (cleos["state"], cleos["reason"]) == ("skipped", "no_address")
    assert cleos["why"] == "The customer has no e-mail address on record."
    assert dans["why"] == "The customer has not agreed to news by e-mail."


def test_the_same_launch_again_sends_nothing_twice(
    shop: House, library: Library, policy: Policy
) -> None:
    library.write("spring_news/journey.py", JOURNEY)
    library.write("spring_news/news.email.html", TEMPLATE)
    shop.open_library(library.path, policy)
    shop.customer("ann")

    first = shop.launch("spring-news", launch_id="march")
    again = shop.launch("spring-news", launch_id="march")
    assert first == again
    assert len(shop.providers.accepted) == 1
