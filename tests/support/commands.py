"""Run commands of `segue` in the test's process, on its shop."""

import io
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

import flows.app
import flows.cli.main
from config.clock.times import format_instant
from journeys.definition.catalog import Catalog
from tests.support.shop import House


class Said(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str


Segue = Callable[..., Said]


def commands(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Segue:
    """A function that runs a command on the shop's database, at its time, with its journeys."""

    def catalog(*_: object) -> Catalog:
        found = house.segue.catalog
        return Catalog(found.current, found.segments, traits=found.traits, personas=found.personas)

    monkeypatch.setenv("SEGUE_DATABASE_URL", house.db.url)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(flows.app, "load_catalog", catalog)

    def run(*arguments: str) -> Said:
        monkeypatch.setenv("SEGUE_NOW", format_instant(house.now))
        monkeypatch.setattr(sys, "argv", ["segue", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        capsys.readouterr()
        status = 0
        try:
            with house.providers.listening():
                flows.cli.main.main()
        except SystemExit as stopped:
            status = stopped.code if isinstance(stopped.code, int) else int(bool(stopped.code))
        return Said(status, *capsys.readouterr())

    return run
