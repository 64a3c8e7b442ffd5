"""Rules for input from calls, files and forms, from the policy and the settings."""

from collections.abc import Mapping
from typing import NamedTuple

from config.join_rules import DEFAULT_JOIN_RULES, JoinRules
from config.policy import ConsentTrait, JoinOn
from profiles.consent.double_opt_in import NO_TOPICS
from profiles.identity.erased import NOBODY_ERASED, ErasedAddresses
from profiles.identity.holdout import NO_HOLDOUT, Holdout
from profiles.identity.placeholders import MEANINGLESS, Meaningless


class ProfileLimits(NamedTuple):
    """Limits of a profile.

    attributes: bytes of all attributes as JSON. identifiers: their number; user ids are never
    dropped.
    """

    attributes: int = 256 * 1024
    identifiers: int = 100


DEFAULT_LIMITS = ProfileLimits()


class InputRules(NamedTuple):
    """The rules for input, created once in each process; the defaults are those of an empty policy.

    lenient_dots: `SEGUE_LENIENT_EMAIL_DOTS`, as in normalise_email.
    meaningless: placeholders; identifiers with such a value are ignored.
    consent_traits: the traits of an identify call that state consent.
    double_opt_in: topics whose yes on e-mail needs a confirmation: names by id.
    join_on: the addresses in calls that join profiles.
    joins: how many identifiers of a kind become one profile, and which of a call is left out.
    holdout: the share of profiles that get no marketing.
    erased: how addresses of erased people are recognised.
    """

    lenient_dots: bool = False
    meaningless: Meaningless = MEANINGLESS
    consent_traits: tuple[ConsentTrait, ...] = ()
    limits: ProfileLimits = DEFAULT_LIMITS
    double_opt_in: Mapping[str, str] = NO_TOPICS
    join_on: JoinOn = "any"
    joins: JoinRules = DEFAULT_JOIN_RULES
    holdout: Holdout = NO_HOLDOUT
    erased: ErasedAddresses = NOBODY_ERASED


DEFAULT_RULES = InputRules()
