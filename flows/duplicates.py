"""Find profiles that are one person, and decide about what was found.

None of this is in the path of an event.
"""

from dataclasses import dataclass
from math import log2

from config.database.engine import Tx
from config.errors import SegueError
from flows.app import Segue
from journeys.operations.merge import merge
from profiles.duplicates import (
    ACCEPTED,
    REFUSED,
    SUGGESTED,
    Suggestion,
    decide,
    people,
    replace_suggestions,
    suggestion,
    with_user_ids,
)
from profiles.identity.addresses import addresses_in_use
from profiles.identity.mergers import Merger, UsableParts
from profiles.identity.survivors import survivors

# Suggestions that one run stores at most; nobody decides about more.
MOST = 1_000
# Who decided, where the policy's `join_from` did.
POLICY = "the policy"
_WHY = "duplicate"


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatesFound:
    """What a run found: the profiles it read, what it suggests, and how many the policy joined."""

    profiles: int
    suggested: list[Suggestion]
    joined: int


def find_duplicates(segue: Segue) -> DuplicatesFound:
    """Match all profiles, store the suggestions, and join those that the policy says."""
    rules = segue.policy.matching
    ids, found = _matched(segue, _weight(rules.suggest_from))
    with segue.db.transaction() as tx:
        stored = replace_suggestions(tx, found)
    joined = 0
    if rules.join_from is not None:
        least = _weight(rules.join_from)
        joined = sum(_joined_by_policy(segue, one) for one in stored if one.weight >= least)
    with segue.db.transaction(write=False) as tx:
        now = survivors(tx, {one.left_id for one in stored} | {one.right_id for one in stored})
    left = [one for one in stored if not {one.left_id, one.right_id} & now.keys()]
    return DuplicatesFound(profiles=ids, suggested=left, joined=joined)


def accept(segue: Segue, name: str, by: str) -> Suggestion:
    """Join the two profiles of a suggestion: the newer becomes part of the older.

    The opt-ins of the newer one do not count afterwards, every opt-out does. Raises SegueError for
    an unknown or decided suggestion.
    """
    with segue.db.transaction() as tx:
        found = _open(tx, name)
        _join(tx, found)
        decide(tx, found, ACCEPTED, by)
    return found


def refuse(segue: Segue, name: str, by: str) -> Suggestion:
    """The two are not one person: they are never suggested again. Raises SegueError as `accept`."""
    with segue.db.transaction() as tx:
        found = _open(tx, name)
        decide(tx, found, REFUSED, by)
    return found


def _open(tx: Tx, name: str) -> Suggestion:
    found = suggestion(tx, name)
    if found.state != SUGGESTED:
        raise SegueError(f"{name} was {found.state} by {found.decided_by}; nothing was changed")
    gone = survivors(tx, {found.left_id, found.right_id})
    if gone:
        raise SegueError(
            f"{name}: a profile of it was joined to another one meanwhile; "
            "`segue duplicates find` looks again"
        )
    return found


def _joined_by_policy(segue: Segue, one: Suggestion) -> bool:
    """Join a pair without a person, unless that needs one: both have a user id."""
    with segue.db.transaction() as tx:
        pair = [one.left_id, one.right_id]
        if survivors(tx, pair) or len(with_user_ids(tx, pair)) == 2:
            return False
        _join(tx, one)
        decide(tx, one, ACCEPTED, POLICY)
    return True


def _join(tx: Tx, found: Suggestion) -> None:
    """The addresses of the one that goes become usable, its opt-ins do not."""
    in_use = addresses_in_use(tx, [found.right_id]).get(found.right_id, [])
    share = UsableParts(
        addresses=frozenset((kind, value) for kind, value, *_ in in_use),
        yes_on=frozenset(),
        verified=True,
    )
    merger = Merger(from_id=found.right_id, into_id=found.left_id, why=_WHY, share=share)
    merge(tx, [merger])


def _matched(segue: Segue, least: float) -> tuple[int, list[Suggestion]]:
    """The number of profiles, and the most likely pairs of at least this weight."""
    # They take longer to load than Prefect needs to list the flows.
    from profiles.matching.columns import COLUMNS
    from profiles.matching.matching import match
    from profiles.matching.records import Records

    records, ids = Records(COLUMNS), []
    with segue.db.transaction(write=False) as tx:
        now = tx.now
        for profile_id, stated in people(tx):
            if any(stated.values()):
                ids.append(profile_id)
                records.add([stated[column] for column in COLUMNS])
    if len(ids) < 2 or records.is_uniform():
        return len(ids), []
    with match(records.table(), across=False, least=least) as matches:
        likely = sorted(matches.pairs, key=lambda pair: -pair[2])[:MOST]
        prior = ["two random profiles", "", matches.prior]
        found = [
            Suggestion(
                left_id=min(ids[left], ids[right]),
                right_id=max(ids[left], ids[right]),
                weight=weight,
                bars=[prior, *([*bar] for bar in bars if bar.level != "unknown")],
                found_at=now,
            )
            for (left, right, weight), bars in matches.explain(likely)
        ]
    return len(ids), sorted(found, key=lambda one: (-one.weight, one.left_id))


def _weight(probability: float) -> float:
    return log2(probability / (1 - probability))
