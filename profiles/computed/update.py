"""Compute traits of profiles, and store those that differ.

`profile.computed` has the values of a profile; empty: never computed. A trait without a value is
left out.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import select, update

from config.database.arrays import any_of, insert_or_update, rows_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from profiles.bucketing import bucket_of, buckets_of
from profiles.computed.definitions import ComputedTraits, EventTrait
from profiles.computed.statements import grouped_events
from profiles.computed.values import TraitValue, score, value_of
from profiles.tables import profiles, trait_states

_p, _s = profiles.c, trait_states.c
TraitValues = Mapping[str, TraitValue]

_STORED = select(_p.id, _p.computed).where(any_of(_p.id, "profiles"), in_buckets(_p.bucket))
_CHANGES = rows_of("changes", _p.id, _p.bucket, _p.computed)
_STORE = (
    update(profiles)
    .where(_p.id == _CHANGES.c.id, _p.bucket == _CHANGES.c.bucket, in_buckets(_p.bucket))
    .values(computed=_CHANGES.c.computed)
)
_CUTS = select(_s.trait, _s.digest, _s.cuts)
put_states = insert_or_update(_s.trait, _s.digest, _s.day, _s.cuts)


def update_after_events(
    tx: Tx, traits: ComputedTraits, by_name: Mapping[str, Collection[int]], always: str
) -> list[int]:
    """Compute what these events may change. The profiles must be locked.

    Parameters
    ----------
    by_name: the profiles with new events, by the name of the events.
    always: the name of the event after which all traits are computed: the profile may have been
        joined with another one. So they are for a profile that has none yet.

    Returns
    -------
    The profiles whose values have changed.
    """
    everybody = sorted({one for people in by_name.values() for one in people})
    stored = _stored(tx, everybody)
    whole = {one for one, values in stored.items() if values is None}
    whole |= stored.keys() & set(by_name.get(always, ()))
    wanted = {
        name: sorted(whole | (stored.keys() & set(by_name.get(one.event, ()))))
        for name, one in traits.of_events.items()
    }
    return [one for one, _ in _update(tx, traits, stored, wanted)]


def update_all(
    tx: Tx, traits: ComputedTraits, profile_ids: Sequence[int]
) -> Iterator[tuple[int, set[str]]]:
    """Compute all traits of profiles, which must be locked. Yields the profiles that have changed,
    with the names of their traits that have.
    """
    wanted = dict.fromkeys(traits.of_events, profile_ids)
    yield from _update(tx, traits, _stored(tx, profile_ids), wanted)


def stored_values(tx: Tx, profile_ids: Sequence[int]) -> dict[int, TraitValues]:
    """The values of profiles, as they were computed last."""
    return {one: values or {} for one, values in _stored(tx, profile_ids).items()}


def update_quantiles(
    tx: Tx, traits: ComputedTraits, profile_ids: Sequence[int]
) -> Iterator[tuple[int, set[str]]]:
    """As `update_all`, for the quantiles only."""
    yield from _update(tx, traits, _stored(tx, profile_ids), {})


def cuts(tx: Tx, traits: ComputedTraits) -> dict[str, list[float]]:
    """The cuts of the quantiles, as of the last nightly pass with today's definitions."""
    return {
        name: found
        for name, digest, found in tx.rows(_CUTS, {})
        if name in traits.quantiles and digest == traits.quantiles[name].digest and found
    }


def _stored(tx: Tx, profile_ids: Sequence[int]) -> dict[int, dict[str, TraitValue] | None]:
    given = {"profiles": profile_ids, "buckets": buckets_of(profile_ids)}
    return dict(tx.rows(_STORED, given))


def _update(
    tx: Tx,
    traits: ComputedTraits,
    stored: Mapping[int, Mapping[str, TraitValue] | None],
    wanted: Mapping[str, Sequence[int]],
) -> list[tuple[int, set[str]]]:
    """Compute the traits of `wanted` for its profiles, and all quantiles.

    TraitValues of traits that are not defined any more are removed.
    """
    values = {
        one: {name: value for name, value in (before or {}).items() if name in traits.of_events}
        for one, before in stored.items()
    }
    for name, people in wanted.items():
        if people:
            _measure(tx, traits.of_events[name], people, values)
    if traits.quantiles:
        _place(traits, cuts(tx, traits), values)
    changed = [
        (one, _different(stored[one] or {}, after))
        for one, after in values.items()
        if after != stored[one]
    ]
    if changed:
        rows = [(one, bucket_of(one), values[one]) for one, _ in changed]
        given: dict[str, Any] = {
            "changes": rows,
            "buckets": buckets_of([one for one, _ in changed]),
        }
        tx.conn.execute(_STORE, given)
    return changed


def _measure(
    tx: Tx, trait: EventTrait, people: Sequence[int], values: Mapping[int, dict[str, TraitValue]]
) -> None:
    found = grouped_events(tx, trait, people)
    for one in people:
        value = value_of(trait, found.get(one, ()), tx.now)
        if value is None:
            values[one].pop(trait.name, None)
        else:
            values[one][trait.name] = value


def _place(
    traits: ComputedTraits,
    all_cuts: Mapping[str, Sequence[float]],
    values: Mapping[int, dict[str, TraitValue]],
) -> None:
    for name, trait in traits.quantiles.items():
        for own in values.values():
            value = own.get(trait.quantile)
            if name in all_cuts and isinstance(value, int | float):
                own[name] = score(value, all_cuts[name], lowest_is_best=trait.lowest_is_best)


def _different(before: TraitValues, after: TraitValues) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
