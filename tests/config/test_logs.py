"""The worker's log: one JSON object per line, with ids and without personal data."""

import asyncio
import io
import logging
import uuid
from typing import Any

import httpx
import orjson
import pytest

from config.database.engine import Database
from config.errors import DatabaseUnusable
from config.logs.repeats import CountingHandler
from config.logs.setup import JsonLines
from flows.worker.worker import Worker
from journeys.dsl import SMS, Email, Journey, OnEvent, Send, Update
from tests.support.logged import Log, logging_at
from tests.support.patience import PATIENCE
from tests.support.providers.callback_samples import FromProviders
from tests.support.shop import House


def one(logger: str, message: str, *args: object, **options: Any) -> dict[str, Any]:
    with logging_at("debug") as log:
        logging.getLogger(logger).error(message, *args, **options)
    [line] = log.lines
    return line


def test_a_line() -> None:
    line = one("journeys.engine", "message %d is late", 7, extra={"message_id": 7, "journey": "j"})
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "error",
        "logger": "journeys.engine",
        "message": "message 7 is late",
        "message_id": 7,
        "journey": "j",
    }


def test_an_error_is_its_kind_and_place() -> None:
    try:
        raise KeyError("ann@example.com")
    except KeyError:
        line = one("flows.worker.worker", "it failed", exc_info=True)
    assert line["error"].startswith("KeyError at test_logs.py:")


def test_other_libraries_log_only_their_first_line() -> None:
    """asyncio shows the exception's message from its second line on."""
    said = "Task exception was never retrieved\nfuture: <Task exception=KeyError('Ann Lee')>"
    line = one("asyncio", said, extra={"color_message": "Ann Lee"})
    assert line["message"] == "Task exception was never retrieved"
    assert b"Ann" not in orjson.dumps(line)


@pytest.mark.parametrize(
    ("said", "logged_as"),
    [
        ("no such mailbox ann.lee+x@mail.example.co.uk.", "no such mailbox ***."),
        ("<ann@example.com> \u00e4nn@example.com", "<***> ***"),
        ("The 'To' number +44 7700 900001 is not valid", "The 'To' number *** is not valid"),
        ("+447700900001", "***"),
        ("To:ann@example.com, mailto:ann@example.com", "To:***, mailto:***"),
        ("to=ann@example.com (ann@example.com) [ann@example.com]", "to=*** (***) [***]"),
        (
            '{"url":"https://a.example","to":"ann@example.com"}',
            '{"url":"https://a.example","to":"***"}',
        ),
        ("https://a.example/?to=ann@example.com", "https://a.example/?to=***"),
        ("whatsapp:+447700900001 WhatsApp:447700900001", "whatsapp:*** WhatsApp:***"),
        ("to tel:07700 900001 and sms:07700-900001.", "to tel:*** and sms:***."),
        # addresses of every form
        ("'o'neil@example.com' and o'neil@example.com", "'***' and ***"),
        ('"ann lee"@example.com, <"a\\"b@c"@example.com>', "***, <***>"),
        (
            "ann@b\u00fccher.example ann@bu\u0308cher.example ann@xn--bcher-kva.example",
            "*** *** ***",
        ),
        ("\u7528\u6237@\u4f8b\u3048\u3002jp ann\uff20example.com ann@[192.0.2.1]", "*** *** ***"),
        ("a/b=c@example.com bounce-ann=example.com@lists.example.com", "*** ***"),
        (
            "ann%40example.com https://a.example/?to=ann%40example.com&x=1",
            "*** https://a.example/?to=***&x=1",
        ),
        (
            "https://a.example,ann@example.com smtp://ann%40example.com:pw@mail.example",
            "https://a.example,*** smtp://***:pw@mail.example",
        ),
        # numbers of every form
        ("07700900123, (07700) 900123; 0770.090.0123, 0770-090-0123", "***, ***; ***, ***"),
        ("call 07700900123 07700900124 812 now", "call *** now"),
        ("0044 7700 900123", "***"),
        ("00447700900123, +44 (0)7700 900123, +44.7700.900.123", "***, ***, ***"),
        ("0151/12345678; (555) 010-9999; 555-010-9999; +1 (555) 010-9999", "***; ***; ***; ***"),
        ("0770\u00a0090\u202f0123, 0770\u2011090\u20110123, %2B447700900123", "***, ***, ***"),
        (
            "phone=07700900123 https://a.example/u/07700900123/x",
            "phone=*** https://a.example/u/***/x",
        ),
        # what an operator needs
        ("postgresql+psycopg://segue:***@db.internal/segue", None),
        ("redis://segue@db.internal and amqp://segue:word@mq.internal:5672/segue", None),
        ("message 447700900001 of 20260302100000; sms: 1234567 hotel:12345678", None),
        ("run 0a1b2c3d-0770-0900-1234-567890123456 by host-1:4242", None),
        ("01234567-8901-4345-6789-0a2345678901 SM0123456789012345678901234567890123", None),
        ("14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0 <14c5d75ce93@ismtpd-555>", None),
        ("took 0.0123456789 s since 10:00:00.123456789 on 01.02.2026 at 192.168.100.200", None),
        ("it is 3+4 = 7 at 2026-03-02T10:00:00+00:00; 8,000+ moves", None),
    ],
)
def test_what_looks_like_an_address_is_masked(said: str, logged_as: str | None) -> None:
    assert one("channels.outbox.breaker", "%s", said)["message"] == (logged_as or said)


def test_values_in_extra_are_masked_however_deep_they_lie() -> None:
    run = uuid.UUID("0a1b2c3d-0770-0900-1234-567890123456")
    line = one(
        "flows.worker.worker",
        "it failed",
        extra={
            "message_id": 447700900001,
            "run": run,
            "why": "o'neil@example.com",
            "to": 447700900123,
            "tried": ["07700900123", ("ann@example.com",), {"ann@example.com"}],
            "nested": {"ann@example.com": {"phone": 447700900123, "event_id": 7}},
            "error": ValueError("ann@example.com"),
        },
    )
    assert line["message_id"] == 447700900001
    assert line["run"] == str(run)
    assert line["why"] == line["to"] == line["error"] == "***"
    assert line["tried"] == ["***", ["***"], ["***"]]
    assert line["nested"] == {"***": {"phone": "***", "event_id": 7}}


def test_the_message_of_an_exception_is_masked() -> None:
    try:
        raise DatabaseUnusable("no room for ann@example.com and 07700900123")
    except DatabaseUnusable as error:
        line = one("flows.worker.worker", "it failed: %s", error, exc_info=True)
    assert line["message"] == "it failed: no room for *** and ***"
    assert line["error"] == "no room for *** and ***"


class Unwritable:
    def __str__(self) -> str:
        raise ValueError("ann@example.com")


def test_no_value_breaks_a_line() -> None:
    """Lone surrogates, and values that JSON or orjson cannot represent."""
    loop: dict[str, Any] = {}
    loop["itself"] = loop
    line = one(
        "flows.worker.worker",
        "half an emoji \ud83d and %s",
        "\udc80",
        extra={
            "half": {"\ud83d": "\udfff"},
            "large": 2**70,
            "object": Unwritable(),
            "loop": loop,
            "bytes": {(1, 2): b"\xff"},
            "number": float("nan"),
            "enormous": 10**5000,
        },
    )
    assert line["message"] == "half an emoji \ufffd and \ufffd"
    assert line["half"] == {"\ufffd": "\ufffd"}
    assert line["large"] == str(2**70)
    assert line["object"] == "<Unwritable>"
    assert line["bytes"] == {"(1, 2)": "b'\\xff'"}
    assert line["number"] is None
    assert line["enormous"] == "<int>"
    assert set(line["loop"]) == {"itself"}


@pytest.mark.parametrize("values", [("ann@example.com",), (Unwritable(),), (1, 2, 3)])
def test_a_record_with_mismatched_arguments_is_still_logged(
    values: tuple[object, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    line = one("flows.worker.worker", "message %d of %d", *values)
    assert line["message"] == "'message %d of %d' with arguments that do not match"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "piece", ["a", "a%40", '"', '"a" ', "0", "0 ", "+1 ", "(", "a@", "a.", "://", "a:"]
)
def test_a_long_line_takes_no_longer_than_its_length(piece: str) -> None:
    """With quadratic patterns this would take minutes."""
    text = piece * (100_000 // len(piece))
    assert len(one("flows.worker.worker", "%s", text)["message"]) > 0


def test_levels() -> None:
    with logging_at("info") as log:
        for name in ("journeys.engine.advance", "httpx"):
            for level in (logging.DEBUG, logging.INFO, logging.WARNING):
                logging.getLogger(name).log(level, "%s", logging.getLevelName(level))
    assert [(line["logger"], line["message"]) for line in log.lines] == [
        ("journeys.engine.advance", "INFO"),
        ("journeys.engine.advance", "WARNING"),
        ("httpx", "WARNING"),
    ]


# Repeated lines -----------------------------------------------------------------------------------


def lines_of(*records: tuple[float, str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines written for warnings, each with its time, text and ids."""
    stream = io.StringIO()
    handler = CountingHandler(stream)
    handler.setFormatter(JsonLines())
    for created, message, ids in records:
        made = {
            "name": "channels.outbox.breaker",
            "levelno": logging.WARNING,
            "levelname": "WARNING",
        }
        handler.handle(logging.makeLogRecord({**made, "msg": message, "created": created, **ids}))
    handler.close()
    return [
        {name: value for name, value in orjson.loads(line).items() if name not in SAME}
        for line in stream.getvalue().splitlines()
    ]


SAME = ("level", "logger")


def at(second: float) -> str:
    return f"1970-01-01T00:{int(second // 60):02}:{second % 60:06.3f}Z"


def test_a_warning_that_repeats_is_counted() -> None:
    assert lines_of(*[(0, "refused", {})] * 5000) == [
        {"time": at(0), "message": "refused"},
        {"time": at(0), "message": "refused", "repeated": 4999},
    ]


def test_a_repeated_warning_is_written_once_a_minute() -> None:
    seconds = [second / 10 for second in range(1200)]
    assert lines_of(*((second, "refused", {}) for second in seconds)) == [
        {"time": at(0), "message": "refused"},
        {"time": at(59.9), "message": "refused", "repeated": 599},
        {"time": at(119.9), "message": "refused", "repeated": 600},
    ]


def test_the_count_of_repeats_is_written_with_other_lines() -> None:
    said = lines_of((0, "a", {}), (1, "a", {}), (59, "b", {}), (60, "c", {}), (61, "a", {}))
    assert said == [
        {"time": at(0), "message": "a"},
        {"time": at(59), "message": "b"},
        {"time": at(1), "message": "a", "repeated": 1},
        {"time": at(60), "message": "c"},
        {"time": at(61), "message": "a", "repeated": 1},
    ]


def test_lines_with_other_ids_are_other_lines() -> None:
    said = lines_of((0, "late", {"message_id": 1}), (0, "late", {"message_id": 2}))
    assert [line["message_id"] for line in said] == [1, 2]


def test_a_clock_that_is_set_back_silences_nothing() -> None:
    said = lines_of((1000, "a", {}), (0, "a", {}), (0, "a", {}))
    assert [line.get("repeated") for line in said] == [None, None, 1]


def test_at_most_a_thousand_lines_are_remembered() -> None:
    many = map(str, range(1001))
    said = lines_of(*((0, text, {}) for text in ("0", *many, "0")))
    assert len(said) == 1003
    assert [line.get("repeated") for line in said if line["message"] == "0"] == [None, 1, None]


def test_information_is_not_counted_together() -> None:
    with logging_at("info") as log:
        for _ in range(3):
            logging.getLogger("flows.worker.worker").info("1 moves; nothing to send")
    assert len(log.lines) == 3


def test_an_error_that_repeats_keeps_its_kind_and_place() -> None:
    with logging_at("info") as log:
        for _ in range(3):
            try:
                raise KeyError("ann@example.com")
            except KeyError:
                logging.getLogger("flows.worker.worker").exception("it failed")
        logging.getLogger().handlers[0].close()
    first, again = log.lines
    assert (first["error"], again["repeated"]) == (again["error"], 2)
    assert first["error"].startswith("KeyError at test_logs.py:")


# Whatever goes wrong ------------------------------------------------------------------------------

SECRETS = ("Annabel", "annabel", "Lee", "example.com", "7700900", "token-")


def test_no_log_line_has_customer_data(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(Database(sqlite_url))
    house.shorten(after_trouble=0.02)
    steps = [Send("s", Email("hello"), SMS("hello")), Update("u", x=1)]
    house.open(Journey("j", entry=OnEvent("came"), topic="news", steps=steps))
    about = {"first_name": "Annabel", "last_name": "Lee"}
    people = iter([house.customer(f"annabel{number}", attributes=about) for number in range(5)])

    def bad(*_: Any) -> Any:
        raise ValueError("Annabel Lee <annabel@example.com>")

    async def comes(log: Log, says: str, broken: str | None = None) -> None:
        """A customer's event arrives, and processing it fails."""
        with pytest.MonkeyPatch.context() as patch:
            if broken:
                patch.setattr(broken, bad)
            house.did(next(people), "came", name="Annabel Lee")
            async with asyncio.timeout(PATIENCE):
                while says not in log.text:
                    await asyncio.sleep(0.02)

    async def scenario(log: Log) -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(Worker(house.segue).run(stop))
        await comes(log, "failed and will be retried", "journeys.engine.events.lock_profiles")
        await comes(log, "failed for enrollment", "journeys.engine.move._handle")
        await comes(log, "can't be rendered", "channels.outbox.render.Renderer._rendered")
        await comes(log, '"message":"sent"')
        refusal = {"errors": [{"message": "annabel@example.com must not send", "field": None}]}
        house.providers.answer("email", httpx.Response(401, json=refusal))
        await comes(log, "sendgrid is paused for")
        refused = (await asyncio.to_thread(forge)).status_code
        assert refused == 403
        failed = {"message": "it failed", "exception": ValueError("Annabel Lee")}
        asyncio.get_running_loop().call_exception_handler(failed)
        stop.set()
        await working

    def forge() -> httpx.Response:
        body = b'[{"email": "annabel@example.com", "event": "open"}]'
        outside = FromProviders(house.segue)
        return outside.post("/hooks/sendgrid", body, {"content-type": "application/json"})

    with house.providers.listening(), logging_at("debug") as log:
        asyncio.run(scenario(log))
    assert [secret for secret in SECRETS if secret in log.text] == [], log.text
    for said, ids in (
        ("failed and will be retried", {"event_id"}),
        ("failed for enrollment", {"journey", "step", "enrollment_id"}),
        ("can't be rendered", {"message_id", "enrollment_id", "profile_id", "journey", "channel"}),
        ("sent", {"message_id", "enrollment_id", "profile_id", "journey", "step", "channel"}),
        ("sendgrid is paused", {"channel"}),
        ("a request was refused", set()),
        ("it failed", {"error"}),
        (" moves; ", {"entered", "moved", "messages"}),
    ):
        found = [line for line in log.lines if said in line["message"]]
        assert found, said
        assert ids <= set(found[0]), found[0]
