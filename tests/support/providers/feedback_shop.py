"""A shop with one customer, Ann, who gets a message, and providers that report on it."""

from typing import Any

from sqlalchemy import select, update

from channels.messages import messages
from channels.rules.loaders import load_recipients
from channels.rules.recipient import Kind
from config.channels import ChannelName
from config.policy import Policy
from journeys.dsl import SMS, Email, Journey, OnLaunch, Send
from profiles.tables import consents, events, identifiers
from tests.support.providers.callback_samples import FromProviders, mail_event
from tests.support.providers.suppressing import suppressed
from tests.support.shop import House

NEWS = Journey("news", entry=OnLaunch(), topic="news", steps=[Send("hello", Email("hello"))])
TEXTS = Journey("texts", entry=OnLaunch(), topic="news", steps=[Send("hello", SMS("hello"))])


class AnnsShop:
    """A shop with Ann, who is launched into a journey, and the providers."""

    def __init__(self, house: House, journey: Journey, **ann: Any) -> None:
        self.house = house
        house.open(journey)
        self.ann = house.customer("ann", **ann)
        [phone] = self.of(identifiers, kind="phone")
        self.phone: str = phone.value
        house.launch(journey.name)
        self.outside = FromProviders(house.segue)

    @property
    def id(self) -> int:
        return int(self.house.rows()[0].id)

    @property
    def state(self) -> str:
        return str(self.house.rows()[0].state)

    def becomes(self, state: str, **columns: Any) -> None:
        """Set the state of the message."""
        with self.house.db.transaction() as tx:
            tx.conn.execute(update(messages).values(state=state, **columns))

    def suppressed(self, channel: str) -> str | None:
        """The state of the suppression of her address on a channel; None if there is none."""
        states = [why for (on, _), why in suppressed(self.house.db).items() if on == channel]
        return states[0] if states else None

    def of(self, table: Any, **where: Any) -> list[Any]:
        """Ann's rows of a table."""
        found = select(table).where(table.c.profile_id == self.ann)
        for name, value in where.items():
            found = found.where(table.c[name] == value)
        with self.house.db.transaction(write=False) as tx:
            return list(tx.conn.execute(found.order_by(*table.primary_key)))

    def heard(self) -> list[str]:
        return [row.name for row in self.of(events)]

    def mail(self, *names: str, **more: Any) -> None:
        """Post events about her e-mail as SendGrid."""
        said = [mail_event(name, self.id, "Ann@Example.com", **more) for name in names]
        assert self.outside.mail(*said).status_code == 200

    def sms(self, status: str, **more: str) -> None:
        assert self.outside.status(self.id, status, self.phone, **more).status_code == 200

    def says(self, text: str, **more: Any) -> None:
        """Post a text message of hers, one second later."""
        assert self.house.db.now is not None
        self.house.db.now += 1
        answer = self.outside.text(self.phone, text, **more)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/xml")
        assert answer.content == b'<?xml version="1.0" encoding="UTF-8"?><Response></Response>'

    def consent(self, channel: str, topic: str = "*") -> bool | None:
        found = self.of(consents, channel=channel, topic=topic)
        return bool(found[0].granted) if found else None

    def said(self) -> dict[tuple[str, str], bool]:
        return {(row.channel, row.topic): row.granted for row in self.of(consents)}

    def refused(self, channel: ChannelName, topic: str, kind: Kind = "marketing") -> bool:
        """Whether planning refuses messages because consent is missing."""
        with self.house.db.transaction(write=False) as tx:
            ann = load_recipients(tx, Policy(), [self.ann])[self.ann]
        return ann.situation.refusal(Policy(), channel, kind, topic) == "no_consent"

    def says_no_texts(self) -> bool:
        """Whether a STOP is in force."""
        return self.refused("sms", "orders", "transactional")
