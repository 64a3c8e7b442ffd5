"""Random cases for the planner, from any `random.Random` (hypothesis has its own).

The times of a case are multiples of 1 second, 1 minute or 15 minutes. The coarser this grid, the
longer the range of times, so that the reference can step through it in reasonable time. Times are
often near clock changes, midnights, month and week edges, and the ends of rolling windows.
"""

from functools import cache
from random import Random
from typing import Any

from config.clock.times import (
    DAY,
    HOUR,
    MINUTE,
    format_duration,
    format_instant,
    parse_duration,
    parse_instant,
)
from config.clock.zones import zone_names, zones_of_country
from tests.support.planning.reference import SPELLINGS, local, offset

CHANNELS = ["email", "sms", "push", "whatsapp"]
TOPICS = ["promotions", "news"]
STATES = ["planned", "sending", "sent", "delivered", "unknown"]
NOT_COUNTING = ["cancelled", "skipped", "failed"]
ZONES = [
    "America/Havana", "America/New_York", "America/Nuuk", "America/Sao_Paulo",
    "Antarctica/Troll", "Africa/Casablanca", "Asia/Beirut", "Asia/Kathmandu", "Asia/Kolkata",
    "Australia/Lord_Howe", "Europe/Berlin", "Europe/London", "Pacific/Apia", "Pacific/Chatham",
    "Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC",
]  # fmt: skip
NO_ZONES = ["Mars/Olympus", "Europe/Atlantis", "", "CEST+1"]
COUNTRIES = ["DE", "ES", "PT", "NZ", "NZ", "PF", "KI", "KI", "US", "WS", "EIRE", "RSA", "USA", "UK"]
NO_COUNTRIES = ["European Community", "Unspecified", "ZZ", ""]
PHONES = [
    "+4915112345678", "+447700900123", "+34612345678", "+64211234567", "+16502530000",
    "+14165550123", "+9779812345678",
]  # fmt: skip
PERIODS = ["day", "day", "week", "month"]
WEEK_STARTS = ["monday", "sunday", "saturday"]
DAYS = [
    "mon-sun", "mon-sun", "mon-fri", "sat,sun", "fri-mon", "sun", "mon,wed,fri-sat", "sat-thu",
    "thu",
]  # fmt: skip

# By grid: maximal delays, offsets of members, and lengths of rolling caps, in seconds.
REACH = {
    1: [0, 1, 59, 10 * MINUTE, 20 * MINUTE, 20 * MINUTE],
    MINUTE: [0, MINUTE, 45 * MINUTE, 3 * HOUR, 12 * HOUR, DAY, DAY],
    15 * MINUTE: [0, HOUR, 6 * HOUR, DAY, DAY, 3 * DAY, 3 * DAY, 8 * DAY],
}
OFFSETS = {
    1: [0, 0, 1, 90, 10 * MINUTE, DAY],
    MINUTE: [0, 0, MINUTE, 5 * MINUTE, 10 * MINUTE, 2 * HOUR, DAY],
    15 * MINUTE: [0, 0, 15 * MINUTE, HOUR, 2 * HOUR, 12 * HOUR, DAY, 2 * DAY],
}
LENGTHS = {
    1: [1, 90, 10 * MINUTE, HOUR, DAY],
    MINUTE: [MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, DAY],
    15 * MINUTE: [HOUR, 6 * HOUR, DAY, DAY, 2 * DAY, 7 * DAY],
}


def random_case(random: Random) -> dict[str, Any]:
    """One well-formed case."""
    grid = random.choice([1, MINUTE, 15 * MINUTE, 15 * MINUTE, 15 * MINUTE])
    willing = random.random() < 0.5  # only windows and caps can prevent a message
    profile = _profile(random, willing=willing)
    brand = random.choice(ZONES)
    place = _place(random, profile, brand)
    now = _moment(random, place, grid)
    policy = {
        "timezone": brand,
        "week_starts": random.choice(WEEK_STARTS),
        "max_delay": format_duration(random.choice(REACH[grid])),
        "channels": {
            channel: _channel(random, channel, _minute_of_day(now, place), grid)
            for channel in CHANNELS
            if random.random() < 0.8
        },
        "caps": [_cap(random, grid) for _ in range(random.choice([0, 1, 1, 2, 3]))],
    }
    mode = random.choice(["any", "any", "any", "all", "first"])
    size = random.choice([2, 3, 3] if willing else [0, 1, 1, 2, 3])
    return {
        "id": "generated",
        "now": format_instant(now),
        "policy": policy,
        "profile": profile,
        "history": _history(random, now, place, grid),
        "send": {"mode": mode, "messages": [_message(random, grid) for _ in range(size)]},
    }


def step_of(case: dict[str, Any]) -> int:
    """The coarsest grid that contains all times of a case, in seconds: the reference's step."""
    moments = [case["now"], *(entry["send_at"] for entry in case["history"])]
    durations = [message.get("after", "0s") for message in case["send"]["messages"]]
    durations += [cap["within"] for cap in case["policy"]["caps"] if "within" in cap]
    clocks = [
        window[edge]
        for channel in case["policy"]["channels"].values()
        for window in channel.get("windows", [])
        for edge in ("from", "to")
    ]
    if any(not moment.endswith(":00Z") for moment in moments):
        return 1
    if any(parse_duration(duration) % MINUTE for duration in durations):
        return 1
    quarters = all(parse_instant(m) % (15 * MINUTE) == 0 for m in moments)
    quarters &= all(clock[3:] in ("00", "15", "30", "45") for clock in clocks)
    quarters &= all(parse_duration(duration) % (15 * MINUTE) == 0 for duration in durations)
    return 15 * MINUTE if quarters else MINUTE


def _profile(random: Random, *, willing: bool) -> dict[str, Any]:
    chance = random.random()
    zone, country, phone = None, None, random.choice(PHONES)
    if chance < 0.7:
        zone = random.choice(ZONES)
    else:
        zone = random.choice([None, *NO_ZONES])
        country = random.choice([None, *NO_COUNTRIES]) if chance > 0.9 else random.choice(COUNTRIES)
    addresses = {
        "email": "a@example.com",
        "sms": phone,
        "push": ["t1", "t2"],
        "whatsapp": phone,
    }
    consent = (
        {"sms": {"*": True}, "whatsapp": {"*": True}} if willing or random.random() < 0.7 else {}
    )
    if not willing and random.random() < 0.2:
        addresses.pop(random.choice(CHANNELS))
    if not willing and random.random() < 0.5:
        consent[random.choice(CHANNELS)] = {
            topic: random.random() < 0.6 for topic in ["*", *TOPICS] if random.random() < 0.5
        }
    return {
        "timezone": zone,
        "country": country,
        "addresses": addresses,
        "consent": consent,
        "suppressed": [] if willing or random.random() < 0.9 else [random.choice(CHANNELS)],
        "held_out": not willing and random.random() < 0.04,
    }


def _place(random: Random, profile: dict[str, Any], brand: str) -> str:
    """A zone whose midnights and clock changes matter to the case."""
    if profile["timezone"] in ZONES:
        return str(profile["timezone"])
    country = profile["country"] or ""
    return random.choice(zones_of_country(SPELLINGS.get(country, country)) or (brand,))


def _channel(random: Random, name: str, minute_now: int, grid: int) -> dict[str, Any]:
    channel: dict[str, Any] = {}
    if name not in ("sms", "whatsapp") and random.random() < 0.3:
        channel["consent"] = random.choice(["opt-in", "opt-out", "opt-out"])
    if random.random() < 0.85:
        channel["windows"] = [
            _window(random, minute_now, grid) for _ in range(random.choice([1, 1, 1, 2]))
        ]
    return channel


def _window(random: Random, minute_now: int, grid: int) -> dict[str, str]:
    on = 15 if grid == 15 * MINUTE else 1
    day = 24 * 60
    near = {1: 25, MINUTE: 600, 15 * MINUTE: day}[grid]
    usual = [8 * 60, 9 * 60, 22 * 60, 6 * 60, 2 * 60, 150, 60, 0, 0, 12 * 60, 23 * 60 + 30]
    clocks = [
        random.choice(usual)
        if random.random() < 0.4
        else (minute_now + random.randrange(-near, near + 1)) // on * on % day
        for _ in range(2)
    ]
    opens, closes = clocks
    if closes == 0 and random.random() < 0.5:
        closes = day
    if opens == closes:
        closes = (opens + random.choice([15, 60, 23 * 60])) % day
    return {"days": random.choice(DAYS), "from": _clock(opens), "to": _clock(closes)}


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _cap(random: Random, grid: int) -> dict[str, Any]:
    cap: dict[str, Any] = {
        "channels": random.choice(
            ["all", "all", ["email"], ["sms"], ["push"], ["email", "push"], ["email", "sms"]]
        ),
        "limit": random.choice([0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3]),
    }
    if random.random() < 0.5:
        cap["per"] = random.choice(PERIODS)
    else:
        cap["within"] = format_duration(random.choice(LENGTHS[grid]))
    if random.random() < 0.25:
        cap["topic"] = random.choice(TOPICS)
    if random.random() < 0.4:
        cap["counts"] = random.choice(["marketing", "all"])
    return cap


def _message(random: Random, grid: int) -> dict[str, Any]:
    message: dict[str, Any] = {
        "channel": random.choice(CHANNELS),
        "kind": random.choice(["marketing"] * 5 + ["transactional"]),
        "topic": random.choice(["promotions", "promotions", "news"]),
    }
    if random.random() < 0.7:
        message["after"] = format_duration(random.choice(OFFSETS[grid]))
    if random.random() < 0.9:
        message["on_cap"] = random.choice(["skip", "defer", "defer"])
    if random.random() < 0.7:
        message["max_delay"] = format_duration(random.choice(REACH[grid]))
    return message


def _history(random: Random, now: int, place: str, grid: int) -> list[dict[str, Any]]:
    midnight = now - (_minute_of_day(now, place) * MINUTE + now % MINUTE)
    marks = [now, now, midnight, midnight, midnight + DAY]
    found = []
    for _ in range(random.choice([0, 1, 2, 3, 4, 6])):
        far = random.choice([0, 0, HOUR, DAY, 4 * DAY])
        moment = random.choice(marks)
        if random.random() < 0.6:
            moment += random.choice([-1, 1]) * random.choice(LENGTHS[grid])
        moment += random.choice([-grid, 0, 0, grid])
        moment += random.randrange(-far // grid, far // grid + 1) * grid
        found.append(
            {
                "channel": random.choice(CHANNELS),
                "send_at": format_instant(moment),
                "kind": random.choice(["marketing"] * 4 + ["transactional"]),
                "topic": random.choice(["promotions", "promotions", "news"]),
                "state": random.choice(STATES * 2 + NOT_COUNTING),
            }
        )
    return found


def _minute_of_day(now: int, place: str) -> int:
    shown = local(now, place)
    return shown.hour * 60 + shown.minute


def _moment(random: Random, place: str, grid: int) -> int:
    """A time near a clock change, the edge of a month, or a local midnight."""
    kind = random.randrange(4)
    changes = clock_changes(place)
    if place == "Pacific/Apia" and kind < 2:
        mark = parse_instant("2011-12-30T10:00:00Z")
    elif kind < 2 and changes:
        mark = random.choice(changes)
    elif kind == 2:
        month = f"{random.randrange(2024, 2031)}-{random.randrange(1, 13):02}-01T00:00:00Z"
        mark = parse_instant(month)
    else:
        mark = parse_instant("2026-03-02T12:00:00Z") + random.randrange(400) * DAY
        mark -= _minute_of_day(mark, place) * MINUTE
    far = random.choice([HOUR, 6 * HOUR, 36 * HOUR])
    return (mark + random.randrange(-far, far + 1)) // grid * grid


@cache
def clock_changes(zone_name: str) -> list[int]:
    """Every instant from 2024 to 2030 at which the zone's offset from UTC changes."""
    found = []
    end = parse_instant("2031-01-01T00:00:00Z")
    day = parse_instant("2024-01-01T00:00:00Z")
    before = offset(day, zone_name)
    while day < end:
        after = offset(day + DAY, zone_name)
        if after != before:
            low, high = day, day + DAY
            while high - low > 1:
                middle = (low + high) // 2
                if offset(middle, zone_name) == before:
                    low = middle
                else:
                    high = middle
            found.append(high)
        day, before = day + DAY, after
    return found


def all_clock_changes() -> list[tuple[str, int]]:
    """The clock changes of every zone of the zone database, links included."""
    return [(name, change) for name in sorted(zone_names()) for change in clock_changes(name)]
