import pytest

from config.clock.crons import cron_in_words


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("0 8 * * mon", "every Mon at 8:00"),
        ("5 17 * * *", "every day at 17:05"),
        ("0 8 1 * *", "0 8 1 * *"),
        ("*/15 8-20/2 1-7 JAN-mar *", "*/15 8-20/2 1-7 JAN-mar *"),
    ],
)
def test_a_plain_schedule_in_words(cron: str, words: str) -> None:
    assert cron_in_words(cron) == words
