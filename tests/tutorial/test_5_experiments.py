"""Chapter 5: an experiment with two mails. A profile gets the same arm every time."""

from collections import Counter

from config.policy import Policy
from tests.support.shop import House
from tests.tutorial.conftest import Library

JOURNEY = """
    from journeys.dsl import Email, Experiment, Journey, OnLaunch, Send, Update, arm

    journey = Journey(
        "which-subject",
        entry=OnLaunch(again="always"),
        topic="news",
        steps=[
            Experiment(
                "subject",
                arm("short", 3, [Send("short mail", Email("short"))]),
                arm("long", 1, [Send("long mail", Email("long"))]),
                holdout=10,
            ),
            Update("remember", had_the_news=True),
        ],
    )
"""


def test_profiles_are_split_by_weight_and_keep_their_arm(
    shop: House, library: Library, policy: Policy
) -> None:
    library.write("which_subject/journey.py", JOURNEY)
    library.write("which_subject/short.email.html", "Subject: News\n\n<p>News</p>")
    library.write("which_subject/long.email.html", "Subject: All our news\n\n<p>News</p>")
    shop.open_library(library.path, policy)
    people = [shop.customer() for _ in range(80)]

    def arms() -> dict[int, str]:
        return {
            person.profile_id: dict(shop.passed(person.profile_id))["subject"]
            for person in shop.people()
        }

    shop.launch("which-subject")
    first = arms()
    drawn = Counter(first.values())
    assert drawn.total() == 80
    # a tenth gets nothing, three of four of the others the short one: within five deviations
    assert 1 <= drawn["holdout"] <= 21
    assert 33 <= drawn["short"] <= 75
    sent = Counter(mail.text for mail in shop.providers.accepted)
    assert sent == {"News": drawn["short"], "All our news": drawn["long"]}

    # The ways rejoin: everybody came to the last step.
    assert all(shop.attributes(person)["had_the_news"] is True for person in people)

    # A week later the same people get the same arm.
    shop.later("7d")
    shop.launch("which-subject")
    assert len(shop.people()) == 160
    assert arms() == first
