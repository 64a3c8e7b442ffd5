"""What a call with a public key may state: behaviour, and attributes of an anonymous visitor. Pure.

Anyone can read a public key and send any call with it. So such a call names one profile by one
identifier and joins nothing: by the user id if a user token proves it, else by the anonymous id.
`Account.take` leaves a known profile as it is, and only the event counts. All warnings depend on
the call alone, so a response never tells what is stored (docs/decisions/0031-two-kinds-of-key.md).
"""

import re
from collections.abc import Callable, Mapping

from config.channels import channels
from profiles.attributes.companies import GROUP_ID
from profiles.calls.segment_calls import CallRefused, SegmentCall
from profiles.consent.double_opt_in import CONFIRMATION_REQUESTED
from profiles.events import PROFILE_CHANGED
from profiles.identity.person import Person

# Where an address that a public key states is kept: nothing is sent to it, and it joins nothing.
UNCONFIRMED: Mapping[str, str] = {"email": "unconfirmed_email", "phone": "unconfirmed_phone"}
_FIELDS = ("country", "timezone", "language")
# Events that Segue records itself. Some grant rights: whatsapp_replied opens a session.
_REPORTS = (
    "sent|delivered|opened|machine_opened|clicked|failed|bounced|complained|"
    "unsubscribed|resubscribed|stopped|started|replied"
)
_ABOUT_MESSAGES = re.compile(f"({'|'.join(channels())})_({_REPORTS})")
# Those of them that apps and landing pages send.
_SENT_BY_APPS = frozenset({"push_opened", "push_clicked", "sms_clicked", "whatsapp_clicked"})

# Why a user token does not name this user; None if it does.
TokenFault = Callable[[str], str | None]


def as_public(call: SegmentCall, token_fault: TokenFault) -> SegmentCall:
    """What remains of a call with a public key. Raises CallRefused if it names nobody, or for an
    alias and Segue's own events."""
    if call.kind == "alias":
        raise CallRefused("type", "an alias needs a server key")
    if call.kind == "track" and _is_own(call.event):
        raise CallRefused("event", f"{call.event} is an event of Segue's own; use another name")
    said = call.person
    fault = None if said.user_id is None else token_fault(said.user_id)
    warnings = list(call.warnings)
    if said.user_id is not None and fault is None:
        if call.kind in ("identify", "group"):
            warnings.append("traits are left out: those of a known person need a server key")
        person = Person(user_id=said.user_id, by_public_key=True)
        return call._replace(person=person, warnings=tuple(warnings), company_traits={})
    if said.anonymous_id is None:
        raise CallRefused("userId", f"{fault}; give anonymousId, or the user's token")
    if fault is not None:
        warnings.append(f"userId is left out: {fault}")
    if call.kind == "group":
        warnings.append("the group is left out: it needs a server key")
    if said.push_tokens or said.removed_tokens:
        warnings.append("context.device.token is left out: it needs a server key")
    if said.consent:
        warnings.append("consent is left out: it needs a server key")
    person = Person(
        anonymous_id=said.anonymous_id,
        country=said.country,
        timezone=said.timezone,
        language=said.language,
        removed=frozenset(said.removed).intersection(_FIELDS),
        attributes={} if call.kind == "group" else _attributes(said),
        by_public_key=True,
    )
    return call._replace(person=person, warnings=tuple(warnings), company_traits={})


def _is_own(event: str) -> bool:
    if event in (PROFILE_CHANGED, CONFIRMATION_REQUESTED):
        return True
    return event not in _SENT_BY_APPS and _ABOUT_MESSAGES.fullmatch(event) is not None


def _attributes(said: Person) -> Mapping[str, object]:
    attributes = {name: value for name, value in said.attributes.items() if name != GROUP_ID}
    if said.email is not None:
        attributes[UNCONFIRMED["email"]] = said.email
    if said.phone is not None:
        attributes[UNCONFIRMED["phone"]] = said.phone.value
    return attributes
