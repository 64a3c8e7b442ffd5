"""How each table is erased and exported. A test compares it with the columns of all tables.

A new table or column has to be added here; the test fails until it is.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

# deleted: the rows of the person are deleted.
# nameless: they are replaced by rows of nobody, which reports count. Only the columns in `kept`
#   stay as they are; the others are cleared, or get new values that lead to nobody.
# unlinked: the rows stay, without the person's number and what else is in `cleared`.
# hashed: the rows hold keyed hashes of addresses only, and stay.
Erasure = Literal["deleted", "nameless", "unlinked", "hashed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Personal:
    """A table with data about people.

    columns: all of them. kept: those that a nameless or unlinked row keeps.
    exported: whether the rows of a person are in an export; if not, `why` says why.
    """

    erasure: Erasure
    columns: Collection[str]
    kept: Collection[str] = ()
    exported: bool = True
    why: str = ""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PERSONAL: Mapping[str, Personal] = {
    "profile": Personal(
        erasure="deleted",
        columns=_words(
            "id timezone country language attributes created_at updated_at attribute_times "
            "attribute_identifiers bucket computed persona"
        ),
    ),
    "identifier": Personal(
        erasure="deleted",
        columns=_words(
            "kind value profile_id bucket country platform seen_at retired_at unverified_from "
            "added_at origin_id"
        ),
    ),
    "suppression": Personal(
        erasure="deleted",
        columns=_words("address channel bucket state since"),
    ),
    "consent": Personal(
        erasure="deleted",
        columns=_words("profile_id channel topic bucket granted changed_at"),
    ),
    "consent_record": Personal(
        erasure="nameless",
        columns=_words(
            "id profile_id channel topic granted occurred_at recorded_at source wording evidence "
            "identifier_kind identifier_value bucket"
        ),
        kept=_words("channel topic granted occurred_at recorded_at"),
    ),
    "email_confirmation": Personal(
        erasure="deleted",
        columns=_words("address topic profile_id said_at asked_at source wording evidence"),
    ),
    "preference": Personal(
        erasure="deleted",
        columns=_words("profile_id bucket per_week opens closes timezone language changed_at"),
    ),
    "event": Personal(
        erasure="nameless",
        columns=_words(
            "id profile_id name occurred_at received_at properties dedupe_key worked_at "
            "identifier_kind identifier_value bucket"
        ),
        kept=_words("name occurred_at received_at worked_at"),
    ),
    "identity_record": Personal(
        erasure="deleted",
        columns=_words(
            "id profile_id kind at origin_id from_id into_id from_origin into_origin why source "
            "undone_at undone_by data bucket"
        ),
    ),
    "kept_apart": Personal(
        erasure="deleted",
        columns=_words("join_id one_origin other_origin profile_id other_id"),
    ),
    "join_limit_hit": Personal(
        erasure="deleted",
        columns=_words("profile_id at kind value limited_kind bucket limited_to why exempt"),
    ),
    "duplicate": Personal(
        erasure="deleted",
        columns=_words("left_id right_id bucket weight bars found_at state decided_at decided_by"),
    ),
    "merge": Personal(
        erasure="deleted",
        columns=_words("from_id into_id merged_at why moved"),
    ),
    "held_out": Personal(
        erasure="deleted",
        columns=_words("profile_id bucket since"),
    ),
    "held_out_address": Personal(
        erasure="hashed",
        columns=_words("hash bucket since"),
        exported=False,
        why="a hash that says only who is in the holdout",
    ),
    "erased_address": Personal(
        erasure="hashed",
        columns=_words("hash channel bucket since"),
        exported=False,
        why="a hash that says only whom nothing is sent to",
    ),
    "privacy_request": Personal(
        erasure="hashed",
        columns=_words("id at act asked_by hashes counts"),
    ),
    "enrollment": Personal(
        erasure="nameless",
        columns=_words(
            "id profile_id journey version entry_key launch_id context entry_event_id entered_at "
            "since step arrived_at phase due_at attempts ended_at end_reason converted_at bucket"
        ),
        kept=_words(
            "journey version launch_id entered_at since step arrived_at phase due_at attempts "
            "ended_at converted_at"
        ),
    ),
    "message": Personal(
        erasure="nameless",
        columns=_words(
            "id profile_id enrollment_id journey version step member channel kind topic priority "
            "mode after on_cap wanted_at latest_anchor send_at state reason decision attempts "
            "not_after claimed_by provider_id segments address bucket"
        ),
        kept=_words(
            "journey version step member channel kind topic priority mode after on_cap wanted_at "
            "latest_anchor send_at attempts segments"
        ),
    ),
    "message_device": Personal(
        erasure="deleted",
        columns=_words(
            "message_id token bucket profile_id state reason attempts not_after retry_at "
            "provider_id"
        ),
    ),
    "past_message": Personal(
        erasure="nameless",
        columns=_words(
            "id bucket profile_id enrollment_id journey step channel kind topic wanted_at send_at "
            "state address"
        ),
        kept=_words("journey step channel kind topic wanted_at send_at state"),
    ),
    "segment_member": Personal(
        erasure="deleted",
        columns=_words("journey profile_id bucket since"),
    ),
    "passage": Personal(
        erasure="nameless",
        columns=_words("profile_id enrollment_id step bucket journey version outcome at"),
        kept=_words("step journey version outcome at"),
    ),
    "experiment_arm": Personal(
        erasure="nameless",
        columns=_words("profile_id enrollment_id step bucket journey outcome at"),
        kept=_words("step journey outcome at"),
    ),
    "staff_act": Personal(
        erasure="unlinked",
        columns=_words("id at name act profile_id about"),
        kept=_words("id at name act about"),
    ),
}

# The tables without data about customers, with their columns.
IMPERSONAL: Mapping[str, Collection[str]] = {
    "api_key": _words("digest label is_public origins made_at revoked_at"),
    "approval": _words(
        "launch_id journey version audience people why size summary asked_at lapses_at state "
        "decided_at decided_by note finished_at"
    ),
    "attendance": _words("worker seen_at"),
    "bucket_holder": _words("journey holder until"),
    "bucket_lease": _words("journey bucket holder"),
    "change_counter": _words("id changes"),
    "channel_pace": _words("channel second used"),
    "company": _words("id traits trait_times updated_at"),
    "journey_control": _words("journey state changed_at"),
    "journey_news": _words("journey counts told_at"),
    "journey_version": _words("journey version definition created_at"),
    "kept_report": _words("journey question counted_at took rows"),
    "launch": _words("id journey version audience people started_at"),
    "message_total": _words("journey launch_id step channel state reason since number"),
    "passage_total": _words("journey step outcome since number"),
    "promotion": _words("journey step arm promoted_at"),
    "retention_position": _words("name position"),
    "segment_count": _words("segment day people counted_at"),
    "trait_state": _words("trait digest day cuts"),
    "persona_move": _words("month from_persona to_persona people"),
    "signed_call": _words("signature received_at"),
    "staff_session": _words("digest name made_at ends_at"),
    "staff_user": _words("name role password is_one_time made_at timezone"),
    "step_shown": _words("journey step until"),
    "upgrade": _words("revision at"),
}
