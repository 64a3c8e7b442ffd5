"""A journey's report as JSON, CSV, tables and a plot."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

from config.channels import channel_of
from config.clock.times import format_instant, format_rounded
from journeys.analytics.plots import COLOURS, as_svg, new_figure
from journeys.analytics.reports.figures import (
    COMPLAINTS_LIMIT,
    COMPLAINTS_WANTED,
    MEASURES,
    By,
    Delays,
    Figures,
    JourneyReport,
)
from journeys.analytics.reports.statements import NO_COMPLAINTS
from journeys.analytics.revenue import in_currency

NOT_KNOWN = "not known"
# Refusals by caps and windows.
HELD_BACK = ("capped", "window_closed", "no_common_time")
# The names of a group and of its part.
_NAMES: Mapping[By, tuple[str, ...]] = {
    "step": ("step", "channel"),
    "arm": ("experiment", "arm"),
    "channel": ("channel",),
    "segment": ("segment",),
    "week": ("week",),
    "launch": ("launch",),
}
# In a plot, groups beyond these would be too small to read.
_PLOTTED = 12


class ReportTable(NamedTuple):
    """A table for people."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def as_json(report: JourneyReport) -> dict[str, Any]:
    """The report as one JSON object. null: not known; shares are parts of 1."""
    total = report.total
    period = report.period
    return {
        "journey": report.journey,
        "entered": total.entered,
        "active": total.active,
        "converted": total.goals,
        "ended": dict(report.ended),
        "sent": dict(total.by_channel("sent")),
        "unknown": dict(total.by_channel("unknown")),
        "closed_as_unknown": total.by_channel("closed").total(),
        "returned": dict(total.by_channel("returned")),
        "planned": dict(total.planned),
        "not_sent": dict(total.not_sent),
        "by": report.by,
        "from": None if period.first is None else period.first.isoformat(),
        "to": None if period.last is None else period.last.isoformat(),
        "timezone": period.zone,
        "launch": report.launch,
        "counted_at": format_instant(report.counted_at),
        "currency": report.currency,
        "goal_within_seconds": None if report.goal is None else report.goal.within,
        "total": _row(report, total),
        "groups": [_named(report, one) for one in report.groups],
        "channels": [{"channel": one.key, **_row(report, one)} for one in report.channels],
        "steps": [
            {
                "step": one.step,
                "reached": one.reached,
                "here": one.here,
                "left": dict(one.left),
                "ended": dict(one.ended),
                "in_current_version": one.current,
            }
            for one in report.steps
        ],
        "links": [one._asdict() for one in report.links],
        "mailboxes": [
            {
                "mailbox": one.key,
                "sent": one.sent,
                "complained": one.count("complained"),
                "complained_share": one.share("complained"),
                "unsubscribed": one.count("unsubscribed"),
                "returned": one.count("returned"),
                "verdict": complaints(one),
            }
            for one in report.mailboxes
        ],
        "complaints_wanted_below": COMPLAINTS_WANTED,
        "complaints_limit": COMPLAINTS_LIMIT,
        "held_back": [
            {
                "channel": one.key,
                **{reason: one.not_sent[reason] for reason in HELD_BACK},
                **_delayed(report, one.key),
            }
            for one in report.channels
        ],
        "method": report.method,
        "notes": report.notes,
        "empty": report.empty,
    }


def as_csv(report: JourneyReport) -> str:
    """The groups as CSV with a line of headings (RFC 4180)."""
    file = io.StringIO()
    names = _NAMES[report.by]
    columns = [*names, *_row(report, Figures(key=""))]
    columns.remove("not_sent_reasons")
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\r\n")
    writer.writeheader()
    for one in report.groups:
        row = _named(report, one)
        writer.writerow({of: NOT_KNOWN if value is None else value for of, value in row.items()})
    return file.getvalue()


def _named(report: JourneyReport, one: Figures) -> dict[str, Any]:
    names = _NAMES[report.by]
    return {**dict(zip(names, (one.key, one.part), strict=False)), **_row(report, one)}


def _row(report: JourneyReport, one: Figures) -> dict[str, Any]:
    """The figures of a group; those of enrollments only where a group has some."""
    row: dict[str, Any] = {}
    if report.by not in ("step", "channel") or one.entered is not None:
        row |= {"entered": one.entered, "active": one.active, "reached_goal": one.goals}
    row |= {measure: one.count(measure) for measure in MEASURES}
    row["revenue"] = in_currency(one.revenue)
    row |= {"planned": one.planned.total(), "not_sent": one.not_sent.total()}
    row["not_sent_reasons"] = dict(one.not_sent)
    return row


def _delayed(report: JourneyReport, channel: str) -> dict[str, int]:
    found = next((one for one in report.delays if one.channel == channel), None)
    if found is None:
        return {"delayed": 0}
    return {
        "delayed": found.minutes.total(),
        "delayed_and_not_sent_yet": found.waiting,
        **{f"delay_p{percent}_seconds": found.quantile(percent / 100) for percent in (50, 95, 100)},
    }


# Tables -------------------------------------------------------------------------------------------


def headline(report: JourneyReport) -> str:
    """The most important figures in one line; those that nobody reports are `not known`."""
    total = report.total
    parts = [f"{total.entered:,} entered", f"{total.sent:,} sent"]
    parts += [
        f"{_cell(total, measure)} {name}"
        for measure, name in (("opened", "opened"), ("clicked", "clicked"))
    ]
    if report.goal is not None:
        parts.append(f"{total.goals:,} converted")
        parts.append(f"{money(report, total)} revenue ({total.count('orders'):,} orders)")
    return "; ".join(parts)


def tables(report: JourneyReport) -> Iterator[ReportTable]:
    """The tables of the report, without empty ones."""
    for table in (
        results(report),
        reactions(report),
        funnel(report),
        _links(report),
        _mailboxes(report),
        _held_back(report),
    ):
        if table.rows:
            yield table


def results(report: JourneyReport) -> ReportTable:
    """What came of the messages, by group."""
    measures = ("delivered", "opened", "machine_opened", "clicked", "converted")
    people = report.by not in ("step", "channel")
    headings = (
        *_NAMES[report.by],
        *(("entered", "reached the goal") if people else ()),
        *("sent", "delivered", "opened", "by machines", "clicked", "converted", "orders"),
        f"revenue, {report.currency}",
    )
    rows = [
        (
            *_names(report, one),
            *((f"{one.entered or 0:,}", f"{one.goals or 0:,}") if people else ()),
            f"{one.sent:,}",
            *(_cell(one, measure) for measure in measures),
            f"{one.count('orders'):,}",
            f"{in_currency(one.revenue):,.2f}",
        )
        for one in report.groups
    ]
    return ReportTable("Results", headings, rows)


def reactions(report: JourneyReport) -> ReportTable:
    """Objections to the messages, and messages that did not get there, by group."""
    rows = [
        (
            *_names(report, one),
            *(_cell(one, measure) for measure in ("unsubscribed", "complained", "returned")),
            f"{one.planned.total():,}",
            listed(one.not_sent.most_common()) or "none",
        )
        for one in report.groups
    ]
    headings = ("unsubscribed", "complaints", "returned", "planned", "not sent")
    return ReportTable("Objections and refusals", (*_NAMES[report.by], *headings), rows)


def funnel(report: JourneyReport) -> ReportTable:
    """The enrollments by step."""
    rows = [
        (
            one.step if one.current else f"{one.step} (older version)",
            f"{one.reached:,}",
            f"{one.here:,}",
            listed(one.left.most_common()),
            listed(one.ended.most_common()),
        )
        for one in report.steps
    ]
    return ReportTable("Funnel", ("step", "reached", "here now", "left", "ended here"), rows)


def _links(report: JourneyReport) -> ReportTable:
    rows = [
        (one.step, channel_of(one.channel).short, one.url or NOT_KNOWN, f"{one.clicked:,}")
        for one in report.links
    ]
    return ReportTable("Clicked links", ("step", "channel", "link", "messages"), rows)


def _mailboxes(report: JourneyReport) -> ReportTable:
    rows = [
        (
            one.key,
            f"{one.sent:,}",
            *(_cell(one, measure) for measure in ("unsubscribed", "returned")),
            complaints(one),
        )
        for one in report.mailboxes
    ]
    headings = ("mailbox provider", "sent", "unsubscribed", "returned", "complaints")
    return ReportTable("E-mails by mailbox provider", headings, rows)


def complaints(one: Figures) -> str:
    """The complaints of a mailbox provider against the limits, in words."""
    number, share = one.count("complained"), one.share("complained")
    if number is None:
        return f"{NOT_KNOWN}: {NO_COMPLAINTS} shows them in its Postmaster Tools only"
    if share is None:
        return "no mails"
    said = f"{number:,} ({share:.2%})"
    if share >= COMPLAINTS_LIMIT:
        said += f": at or above {COMPLAINTS_LIMIT:.1%}, where mails are refused"
    elif share >= COMPLAINTS_WANTED:
        said += f": at or above {COMPLAINTS_WANTED:.1%}; stay below it"
    else:
        return f"{said}: below {COMPLAINTS_WANTED:.1%}"
    if one.sent * COMPLAINTS_WANTED < 1:
        said += f" (in fewer than {1 / COMPLAINTS_WANTED:,.0f} mails one complaint is enough)"
    return said


def _held_back(report: JourneyReport) -> ReportTable:
    delays = {one.channel: one for one in report.delays}
    rows = []
    for one in report.channels:
        refused = [(reason, one.not_sent[reason]) for reason in HELD_BACK if one.not_sent[reason]]
        late = delays.get(one.key)
        if refused or late is not None:
            rows.append(
                (
                    channel_of(one.key).short,
                    *_delay_cells(late),
                    listed(refused) or "none",
                )
            )
    headings = ("channel", "sent later", "not sent yet", "half within", "95 % within", "longest")
    return ReportTable("Held back by windows and caps", (*headings, "not sent at all"), rows)


def _delay_cells(late: Delays | None) -> tuple[str, ...]:
    if late is None:
        return ("0", "0", "", "", "")
    return (
        f"{late.minutes.total() - late.waiting:,}",
        f"{late.waiting:,}",
        *(format_rounded(late.quantile(part)) for part in (0.5, 0.95, 1)),
    )


def money(report: JourneyReport, one: Figures) -> str:
    """The revenue with its currency."""
    return f"{in_currency(one.revenue):,.2f} {report.currency}"


def listed(counts: Iterable[tuple[str, int]]) -> str:
    """Counts with their names: "3 capped, 1 no consent"."""
    return ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in counts)


def _names(report: JourneyReport, one: Figures) -> tuple[str, ...]:
    names = _NAMES[report.by]
    key = channel_of(one.key).short if report.by == "channel" else one.key
    if report.by == "launch":
        key = key or "no launch"
    part = channel_of(one.part).short if report.by == "step" else one.part
    return (key, part)[: len(names)]


def _cell(one: Figures, measure: str) -> str:
    """A count with its share of the messages that could have it."""
    number, share = one.count(measure), one.share(measure)
    if number is None:
        return NOT_KNOWN
    return f"{number:,}" if share is None else f"{number:,} ({share:.1%})"


# Plot ---------------------------------------------------------------------------------------------


def plot(report: JourneyReport) -> str:
    """The groups' messages as bars: sent, opened, clicked, converted. SVG."""
    shown = [one for one in report.groups if one.sent]
    title = f"{report.journey}: messages by {report.by}"
    if len(shown) > _PLOTTED:
        title += f", the last {_PLOTTED} of {len(shown)}"
        shown = shown[-_PLOTTED:]
    # So narrow that its texts can be read on a phone, which shows it smaller.
    figure, axes = new_figure(title, width=5.5, height=1.5 + 0.8 * len(shown))
    measures = ("sent", "opened", "clicked", "converted")
    thick = 0.8 / len(measures)
    for place, measure in enumerate(measures):
        values = [one.count(measure) for one in shown]
        at = [row + (place - (len(measures) - 1) / 2) * thick for row in range(len(shown))]
        bars = axes.barh(
            at, [value or 0 for value in values], height=thick, color=COLOURS[place], label=measure
        )
        texts = [f" {NOT_KNOWN}" if value is None else f" {value:,}" for value in values]
        axes.bar_label(bars, texts, fontsize=8)
    axes.set_yticks(range(len(shown)), [_label(report, one) for one in shown])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("messages")
    figure.legend(frameon=False, ncols=len(measures), loc="outside lower center")
    return as_svg(figure)


def _label(report: JourneyReport, one: Figures) -> str:
    return "\n".join(line for name in _names(report, one) for line in wrap(name, 20))


def described(report: JourneyReport) -> str:
    """The plot in words, for those who do not see it; the table has its numbers."""
    return f"Bars of sent, opened, clicked and converted messages by {report.by}: " + headline(
        report
    )
