"""One message of a journey, as a chosen customer would get it."""

from typing import NamedTuple
from urllib.parse import urlencode

from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from channels.explain import profile_named
from channels.kinds.email import EmailContent
from config.access.staff_acts import acts_since, record_act
from config.channels import channel_of
from config.clock.times import HOUR
from config.errors import SegueError
from flows.http.staff.journeys.journey import version_of
from flows.http.staff.site import Site, Visit
from flows.http.staff.words import channel_heading, sentence
from flows.send_test import send_test, testers
from journeys.definition.journey import Version
from journeys.definition.steps import MessageSpec, SendStep
from journeys.explain.preview import Preview, latest_in, parts_of, preview
from profiles.identity.search import summaries

# A mail has styles of its own, and images of other hosts. It runs no scripts, and its links lead
# nowhere. Its page embeds it.
_MAIL_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "img-src https: data:; font-src https: data:; base-uri 'none'; frame-ancestors 'self'; sandbox",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}


_TESTS_AN_HOUR = 60


class WantedPreview(NamedTuple):
    """What the query of a preview names. profile_id: None for nobody."""

    step: SendStep
    message: MessageSpec
    profile_id: int | None


def routes(site: Site) -> list[Route]:
    """`/journeys/{name}/message?step=&member=&person=`, and `/mail` with the bare mail.

    person: the number of a profile. An identifier comes in a POST, as in a search.
    """
    return [
        Route("/journeys/{name}/message", site.endpoint("viewer", _show), methods=["GET"]),
        Route("/journeys/{name}/message", site.endpoint("viewer", _choose), methods=["POST"]),
        Route("/journeys/{name}/mail", site.endpoint("viewer", _mail)),
        Route("/journeys/{name}/test", site.endpoint("editor", _test), methods=["POST"]),
    ]


def _wanted(visit: Visit, version: Version) -> WantedPreview:
    query = visit.request.query_params
    key = query.get("step"), query.get("member")
    for step in version.journey.sends():
        for message in step.messages:
            if (step.name, message.member) == key:
                return WantedPreview(step, message, _person(visit, query.get("person", "")))
    raise SegueError(f"{version.journey.name} has no such message; it may have changed")


def _person(visit: Visit, text: str) -> int | None:
    """The profile with a number; None if there is none."""
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        return None
    with visit.segue.db.transaction(write=False) as tx:
        return next((one.id for one in summaries(tx, [int(text)])), None)


def _rendered(visit: Visit, version: Version, wanted: WantedPreview) -> Preview | None:
    """The preview, if the query names a customer; the look is recorded."""
    step, message, profile_id = wanted
    if profile_id is None:
        return None
    segue = visit.segue
    about = f"{version.journey.name}, step {step.name}"
    visit.record("previewed a message", profile_id=profile_id, about=about)
    with segue.db.transaction(write=False) as tx:
        return preview(tx, segue.policy, segue.settings, version, step, message, profile_id)


def _choose(visit: Visit) -> Response:
    """Go to the preview for the customer whom the form names: an identifier, or # and a number."""
    text = visit.form.get("person", "").strip()[:400]
    number = _person(visit, text.removeprefix("#")) if text.startswith("#") else None
    if number is None:
        try:
            with visit.segue.db.transaction(write=False) as tx:
                number = profile_named(tx, text, visit.segue.rules.meaningless)
        except SegueError as error:
            return _show(visit, sentence(str(error)))
    query = dict(visit.request.query_params)
    query |= {"person": str(number), "width": visit.form.get("width", "full")}
    name = visit.request.path_params["name"]
    return RedirectResponse(f"/journeys/{name}/message?{urlencode(query)}", 303)


def _test(visit: Visit) -> Response:
    """Send the message as it is shown to a tester."""
    version = version_of(visit)
    step, message, profile_id = _wanted(visit, version)
    if profile_id is None:
        raise SegueError("choose a customer first: the test is what this customer would get")
    name = visit.user.name
    with visit.segue.db.transaction() as tx:
        if acts_since(tx, name, "sent a test", tx.now - HOUR) >= _TESTS_AN_HOUR:
            raise SegueError(f"you have sent {_TESTS_AN_HOUR} tests in an hour; try again later")
        about = f"{version.journey.name}, step {step.name}"
        record_act(tx, name, "sent a test", profile_id=profile_id, about=about)
    to = visit.form.get("to", "").strip()
    sent = send_test(visit.segue, version, step, message, profile_id, to)
    return visit.page(
        "done",
        sent.title,
        sentences=[sent.why],
        is_bad=not sent.is_accepted,
        back=f"message?{visit.request.url.query}",
        here="/journeys",
    )


def _show(visit: Visit, error: str = "") -> Response:
    version = version_of(visit)
    wanted = _wanted(visit, version)
    step, message, profile_id = wanted
    name = version.journey.name
    with visit.segue.db.transaction(write=False) as tx:
        somebody = latest_in(tx, name)
        people = summaries(tx, [] if profile_id is None else [profile_id])
    found = _rendered(visit, version, wanted)
    content = None if found is None else found.content
    query = {"step": step.name, "member": message.member}
    mail = {**query, "person": profile_id}
    return visit.page(
        "message",
        f"{channel_heading(message.channel)} “{message.template}”",
        name=name,
        step=step,
        member=message.member,
        is_mail=channel_of(message.channel).content is EmailContent,
        person=people[0] if people else None,
        testers=testers(visit.segue.settings, message.channel),
        error=error,
        somebody=somebody,
        found=found,
        parts=[] if content is None else list(parts_of(content)),
        mail=f"mail?{urlencode(mail)}" if isinstance(content, EmailContent) else "",
        width=visit.request.query_params.get("width", "full"),
        here="/journeys",
    )


def _mail(visit: Visit) -> Response:
    version = version_of(visit)
    found = _rendered(visit, version, _wanted(visit, version))
    if found is None or not isinstance(found.content, EmailContent):
        return visit.notice(404, "There is no such mail", "Go back and choose a customer.")
    return HTMLResponse(found.content.html, headers=_MAIL_HEADERS)
