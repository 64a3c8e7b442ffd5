"""The segments of the sample shop, used as audiences and as journey entries."""

from journeys.dsl import Segment, attribute, consented, days, did, has_address

segments = [
    Segment(
        "lapsed",
        "Ordered before, but not in the last 90 days",
        did("order_completed") & ~did("order_completed", within=days(90)),
    ),
    Segment(
        "new-customers",
        "First order within the last 30 days",
        did("order_completed", within=days(30)) & ~(did("order_completed", at_least=2)),
    ),
    Segment(
        "regulars",
        "Five orders or more in the last year",
        did("order_completed", within=days(365), at_least=5),
    ),
    Segment(
        "best-customers",
        "Lifetime value over 1,000",
        attribute("lifetime_value") > 1000,
    ),
    Segment(
        "text-subscribers",
        "Said yes to text messages and can get them",
        consented("sms") & has_address("sms"),
    ),
]
