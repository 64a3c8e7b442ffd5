"""Settings of an installation, read from SEGUE_* environment variables."""

import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from config.clock.times import DAY, Duration, Instant, Seconds, parse_duration, parse_instant
from config.errors import SegueError
from config.logs.setup import Level
from config.text.strict import in_words

_HOST = re.compile(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z0-9-]*[a-z0-9]")
ROOT = Path(__file__).resolve().parent.parent


def _no_slash(url: str) -> str:
    return url.rstrip("/")


def _host(name: str) -> str:
    name = name.lower()
    if not _HOST.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a host; use a name such as shop.example, and xn--… for an "
            "international name"
        )
    return name


def _long(key: SecretStr) -> SecretStr:
    if len(key.get_secret_value()) < 16:
        raise ValueError("a signing key needs at least 16 characters; 40 random ones are best")
    return key


def _long_or_empty(key: SecretStr) -> SecretStr:
    return _long(key) if key.get_secret_value() else key


def _currency(code: str) -> str:
    if not re.fullmatch("[A-Za-z]{3}", code):
        raise ValueError(f"{code!r} is not a currency; use a code of ISO 4217 such as EUR")
    return code.upper()


def _property(path: str) -> str:
    if "[]" in path:
        raise ValueError(f"{path!r} names several values; name one, such as totals.gross")
    return path


def _retention(value: Any) -> Seconds | None:
    """None for an empty text; else seconds."""
    if value in ("", None):
        return None
    seconds = value if isinstance(value, int) else parse_duration(value)
    if seconds < 30 * DAY:
        raise ValueError("a retention is at least 30d, or empty: for ever")
    return seconds


Url = Annotated[str, AfterValidator(_no_slash)]
LinkHost = Annotated[str, AfterValidator(_host)]
SigningKey = Annotated[SecretStr, AfterValidator(_long)]
RetentionTime = Annotated[Seconds | None, BeforeValidator(_retention)]
PropertyPath = Annotated[str, AfterValidator(_property)]
Model = TypeVar("Model", bound=BaseSettings)


class Settings(BaseSettings):
    """Each field is a variable: `database_url` is SEGUE_DATABASE_URL."""

    model_config = SettingsConfigDict(env_prefix="SEGUE_", extra="ignore", populate_by_name=True)

    data_dir: Path = Field(
        default=ROOT / ".segue", description="The folder for files of the embedded defaults."
    )
    database_url: str = Field(
        default="",
        description="The database, such as postgresql+psycopg://segue:…@127.0.0.1/segue. Empty: "
        "SQLite in the data folder.",
    )
    distributed: bool = Field(
        default=False,
        description="Whether PostgreSQL's tables are distributed by bucket over several nodes "
        "(Citus). Rows are then locked bucket by bucket, which takes more statements.",
    )
    policy_file: Path = Field(
        default=ROOT / "config" / "policy.toml",
        description="The file with windows, caps, topics and consent rules.",
    )
    library: Path = Field(
        default=ROOT / "journeys" / "library",
        description="The folder with a folder for each journey, and segments.py.",
    )
    now: Annotated[Instant | None, BeforeValidator(lambda v: v and parse_instant(v))] = Field(
        default=None, description="A simulated time; only with the sandbox."
    )

    public_url: Url = Field(
        default="",
        description="The public URL of the receiver, for customers' links and webhooks. Empty: "
        "this machine at receiver_port. Real providers require an https:// URL.",
    )
    secret_key: SigningKey = Field(
        default=SecretStr("not-a-secret-for-the-sandbox-only"),
        description="Signs the links in messages. Real providers require your own.",
    )
    secret_keys_retired: tuple[SigningKey, ...] = Field(
        default=(),
        description="Earlier secret keys, as a JSON list: links signed with them still work.",
    )
    erasure_key: Annotated[SecretStr, AfterValidator(_long_or_empty)] = Field(
        default=SecretStr(""),
        description="The key of the hashes of erased people's addresses. Never change it: without "
        "it nobody knows whose addresses must not be written to. Empty: secret_key, and the "
        "retired ones.",
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(IPv4Network("127.0.0.1"), IPv6Network("::1")),
        description="Addresses or networks of your proxies, as a JSON list. Their connections are "
        "not limited by client, and only their X-Forwarded-For is used.",
    )
    preferences_link_lifetime: Duration = Field(
        default=60 * DAY,
        validate_default=False,  # already in seconds
        gt=0,
        description="How long links to the preferences page are valid, such as 60d.",
    )
    brand: str = Field(
        default="Segue Sample Shop",
        description="The name of your shop, as customers read it in messages and on pages.",
    )
    languages: dict[str, str] = Field(
        default={
            "en": "English",
            "de": "Deutsch",
            "es": "Español",
            "fr": "Français",
            "it": "Italiano",
            "nl": "Nederlands",
            "pl": "Polski",
            "pt": "Português",
            "sv": "Svenska",
            "ja": "日本語",
        },
        description="The languages that customers can choose, as a JSON object: names by code.",
    )

    write_key: SigningKey = Field(
        default=SecretStr("write-key-for-the-sandbox-only"),
        description="The write key of your servers. Real providers require your own.",
    )
    user_token_secret: Annotated[SecretStr, AfterValidator(_long_or_empty)] = Field(
        default=SecretStr(""),
        description="Signs the user tokens that name a known person with a public key. Empty: a "
        "public key names nobody.",
    )
    public_key_rate: int = Field(
        default=1000,
        ge=1,
        description="Calls a second that a process accepts with one public key; ten seconds' worth "
        "at once.",
    )
    public_address_rate: int = Field(
        default=50,
        ge=1,
        description="Calls a second that a process accepts with public keys from one address; ten "
        "seconds' worth at once.",
    )
    profile_rate: int = Field(
        default=500,
        ge=1,
        description="Profiles a second that a process lets one server key read; ten seconds' worth "
        "at once.",
    )
    hook_secret: SigningKey = Field(
        default=SecretStr("hook-secret-for-the-sandbox-only"),
        description="Signs the calls that start journeys. Real providers require your own.",
    )
    call_secret: SigningKey = Field(
        default=SecretStr("call-secret-for-the-sandbox-only"),
        description="Signs the requests of Call steps. Real providers require your own.",
    )
    lenient_email_dots: bool = Field(
        default=False,
        description="Also accept e-mail addresses with consecutive dots, or a dot at the start or "
        "end of the part before the @, which Japanese providers assigned: a..b@docomo.ne.jp.",
    )
    backlog_limit: int = Field(
        default=50_000,
        ge=1,
        description="Senders of events are slowed down while more events are unprocessed, or more "
        "enrollments of a journey are overdue.",
    )

    profile_attributes_limit: int = Field(
        default=256 * 1024,
        ge=1024,
        description="The most bytes of attributes of a profile, as JSON. Further attributes are "
        "left out with a warning.",
    )
    profile_identifiers_limit: int = Field(
        default=100,
        ge=10,
        description="The most identifiers of a profile. Above it the oldest anonymous ids are "
        "dropped, then the oldest devices.",
    )

    call_hosts: frozenset[Annotated[str, AfterValidator(str.lower)]] = Field(
        default=frozenset(),
        description="Hosts in a private network that Call steps may call, as a JSON list.",
    )

    link_hosts: frozenset[LinkHost] = Field(
        default=frozenset({"shop.example"}),
        description="Hosts that links from customer data may lead to, as a JSON list.",
    )
    sms_segments: int = Field(
        default=10,
        ge=1,
        le=10,
        description="The most segments of an SMS; longer texts are not sent. Twilio's limit of "
        "1600 characters is 10 segments.",
    )

    message_retention: RetentionTime = Field(
        default=365 * DAY,
        description="How long messages stay after their end, such as 365d; reports count them "
        "longer. At least 30d; longer than the caps reach in any case. Empty: for ever.",
    )
    passage_retention: RetentionTime = Field(
        default=90 * DAY,
        description="How long the log of passages through steps stays, such as 90d; reports count "
        "them longer. At least 30d. Empty: for ever.",
    )
    event_retention: RetentionTime = Field(
        default=None,
        description="How long the properties of processed events stay, such as 730d; the events "
        "themselves stay. At least 30d. Empty: for ever.",
    )

    staff_log_retention: RetentionTime = Field(
        default=730 * DAY,
        description="How long the log of the staff site stays, such as 730d. At least 30d. "
        "Empty: for ever.",
    )

    revenue_event: str = Field(
        default="order_completed", min_length=1, description="The event that is an order."
    )
    revenue_amount: PropertyPath = Field(
        default="total_gbp",
        description="The property of an order with its amount, such as total or totals.gross. "
        "Amounts below 0 are refunds.",
    )
    revenue_currency_property: PropertyPath = Field(
        default="",
        description="The property of an order with its currency. Empty: all are in "
        "SEGUE_REVENUE_CURRENCY.",
    )
    revenue_currency: Annotated[str, AfterValidator(_currency)] = Field(
        default="GBP",
        description="The currency of reports, ISO 4217. Orders in others are counted apart.",
    )
    satisfaction_event: str = Field(
        default="", description="The event with a customer's answer to a survey. Empty: none."
    )
    satisfaction_score: PropertyPath = Field(
        default="score", description="The property of that event with the answer, 0 to 10."
    )

    log_level: Level = Field(
        default="info", description="The log level of a worker; debug: a line for each message."
    )
    host: str = Field(
        default="127.0.0.1", description="The address of this machine on which servers listen."
    )
    prefect_port: int = Field(
        default=4200, ge=0, le=65535, description="The port of the Prefect that `segue up` starts."
    )
    prefect_login: bool = Field(
        default=False,
        description="Whether `segue up` protects Prefect with a login. It always does if "
        "SEGUE_HOST is not a loopback address.",
    )
    prefect_api_url: Url = Field(
        default="",
        validation_alias="PREFECT_API_URL",
        description="The URL of Prefect's API, to which workers report. Empty: no reports.",
    )
    prefect_api_key: SecretStr = Field(
        default=SecretStr(""),
        validation_alias="PREFECT_API_KEY",
        description="The API key of Prefect Cloud.",
    )
    prefect_api_auth_string: SecretStr = Field(
        default=SecretStr(""),
        validation_alias="PREFECT_API_AUTH_STRING",
        description="user:password, if your Prefect server requires it.",
    )
    sandbox_port: int = Field(
        default=8025, ge=0, le=65535, description="The port of the sandbox providers and inbox."
    )
    receiver_port: int = Field(
        default=8080, ge=0, le=65535, description="The port of a worker's receiver."
    )
    staff_port: int = Field(default=8090, ge=0, le=65535, description="The port of the staff site.")
    staff_url: Url = Field(
        default="",
        description="The URL at which the staff open their site. Empty: this machine at "
        "staff_port. With real providers the site requires an https:// URL.",
    )
    staff_login_header: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9-]*$",
        description="The header in which your proxy names the user whom it has signed in, such as "
        "X-Forwarded-Email. Then the staff site asks for no password. Empty: it does.",
    )
    staff_login_proxies: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(),
        description="Addresses or networks of the proxies whose staff_login_header is used, as a "
        "JSON list. The header of anybody else is ignored.",
    )

    providers: Literal["sandbox", "live"] = Field(
        default="sandbox", description="`live` hands messages to real providers."
    )
    rates: dict[str, Annotated[int, Field(gt=0)]] = Field(
        default={},
        description='Messages a second by channel or provider, as JSON: {"sms": 10, "postmark": '
        "50}. A channel's rate applies to each of its providers. A push counts once for each "
        "device.",
    )

    testers: dict[str, tuple[str, ...]] = Field(
        default={},
        description="Who may get test messages from the staff site, by channel, as JSON: "
        '{"email": ["me@shop.example"], "sms": ["+447700900001"], "push": ["ios:TOKEN"]}.',
    )

    @model_validator(mode="after")
    def _default_public_url(self) -> Self:
        if not self.public_url:
            self.public_url = f"http://{self.host}:{self.receiver_port}"
        if not self.staff_url:
            self.staff_url = f"http://{self.host}:{self.staff_port}"
        return self

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir / 'segue.db'}"

    @property
    def definitions(self) -> Path:
        """The folder with segments.toml, traits.toml and personas.toml: that of the policy file."""
        return self.policy_file.parent

    @property
    def sandbox_url(self) -> str:
        return f"http://{self.host}:{self.sandbox_port}"

    @property
    def prefect_url(self) -> str:
        return f"http://{self.host}:{self.prefect_port}"


def load_settings() -> Settings:
    """Read the environment. Raises SegueError that names the invalid variable."""
    return read_environment(Settings)


def read_environment(model: type[Model], prefix: str | None = None) -> Model:
    """Read a settings model from the environment, with its own prefix or another one.

    Raises SegueError that names the invalid variable.
    """
    prefix = prefix or str(model.model_config.get("env_prefix", ""))
    try:
        return model(_env_prefix=prefix)
    except ValidationError as error:
        first = error.errors()[0]
        field, *inside = (str(part) for part in first["loc"])
        name = "_".join((variable(model, field, prefix), *inside)).upper()
        secret = any(word in name for word in ("KEY", "TOKEN", "SECRET", "PASSWORD"))
        shown = "" if secret else f"; it is set to {first['input']!r}"
        raise SegueError(f"{name}: {in_words(first)}{shown}") from None
    except SettingsError as error:
        raise SegueError(f"{prefix}*: {error}; write it as JSON") from None


def variable(model: type[BaseSettings], field: str, prefix: str | None = None) -> str:
    """The environment variable of a settings model's field."""
    known = model.model_fields.get(field)
    if known is None or known.validation_alias is not None:
        return str(known.validation_alias) if known else field
    return f"{prefix or model.model_config.get('env_prefix', '')}{field}".upper()
