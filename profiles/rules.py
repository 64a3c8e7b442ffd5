"""Rules for input from calls, files and forms, from the policy and the settings."""

from collections.abc import Mapping
from typing import NamedTuple

from config.policy import ConsentTrait, JoinOn
from profiles.consent.double_opt_in import NO_TOPICS
from profiles.identity.placeholders import MEANINGLESS, Meaningless


class ProfileLimits(NamedTuple):
    """How large a profile may get.

    attributes: bytes of all attributes as JSON. identifiers: how many; user ids are never dropped.
    """

    attributes: int = 256 * 1024
    identifiers: int = 100


DEFAULT_LIMITS = ProfileLimits()


class InputRules(NamedTuple):
    """The rules of input, created once a process; the defaults are those of an empty policy.

    lenient_dots: `SEGUE_LENIENT_EMAIL_DOTS`, as in normalise_email.
    meaningless: values that identify nobody; identifiers with one of them are left out.
    consent_traits: the traits of an identify call that state consent.
    double_opt_in: topics by id whose yes on e-mail waits for its confirmation, with their names.
    join_on: which addresses in calls join two profiles.
    """

    lenient_dots: bool = False
    meaningless: Meaningless = MEANINGLESS
    consent_traits: tuple[ConsentTrait, ...] = ()
    limits: ProfileLimits = DEFAULT_LIMITS
    double_opt_in: Mapping[str, str] = NO_TOPICS
    join_on: JoinOn = "any"


DEFAULT_RULES = InputRules()
