"""The environment variables that are settings of Segue, Prefect or PostgreSQL's client."""

from typing import Any

from prefect.settings import Settings as PrefectSettings
from pydantic import AliasChoices

from channels.providers.registry import known_providers
from config.settings import Settings, variable

# libpq and asyncpg read the password; DO_NOT_TRACK is Prefect's, outside its settings.
OTHERS = {"PGPASSWORD", "DO_NOT_TRACK", "PATH", "PYTHONUNBUFFERED"}


def known_variables() -> set[str]:
    """All of them, in upper case."""
    found = {variable(Settings, field) for field in Settings.model_fields}
    for provider in known_providers().values():
        found |= {variable(provider.settings, field) for field in provider.settings.model_fields}
    return found | _prefects(PrefectSettings) | OTHERS


def _prefects(model: Any) -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            found |= _prefects(field.annotation)
        found.add(f"{model.model_config.get('env_prefix', 'PREFECT_')}{name}".upper())
        if isinstance(field.validation_alias, AliasChoices):
            found |= {str(one).upper() for one in field.validation_alias.choices}
    return found
