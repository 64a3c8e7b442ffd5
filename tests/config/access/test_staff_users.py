"""The users of the staff site: passwords, sessions, and the log of their acts."""

from contextlib import closing

import pytest
from sqlalchemy import text

from config.access.passwords import hash_password, random_password
from config.access.staff_acts import latest_acts, record_act
from config.access.staff_sessions import (
    LASTS,
    end_session,
    end_sessions,
    session_user,
    start_session,
)
from config.access.staff_users import (
    ROLES,
    add_user,
    knows_password,
    list_users,
    remove_user,
    set_password,
    stored_hash,
    user_named,
)
from config.database.engine import Database
from config.errors import SegueError
from tests.support.http.staff import insert_user

PASSWORD = "correct horse battery"


def test_a_user_is_added_listed_and_removed(db: Database) -> None:
    with db.transaction() as tx:
        add_user(tx, "Zoe@shop.example", "editor", PASSWORD, one_time=True)
        zoe = user_named(tx, "ZOE@shop.example")
        assert zoe is not None
        assert (zoe.name, zoe.role, zoe.is_one_time) == ("zoe@shop.example", "editor", True)
        assert [zoe.may(role) for role in ROLES] == [True, True, False]
        stored = stored_hash(tx, zoe.name)
        assert PASSWORD not in stored
        assert knows_password(stored, {"password": PASSWORD})
        set_password(tx, zoe.name, "another long one", one_time=False)
        assert not knows_password(stored_hash(tx, zoe.name), {"password": PASSWORD})
        assert [one.is_one_time for one in list_users(tx)] == [False]
        remove_user(tx, zoe.name)
        assert user_named(tx, zoe.name) is None
        for act in (remove_user, lambda tx, name: set_password(tx, name, PASSWORD, one_time=True)):
            with pytest.raises(SegueError, match="there is no user"):
                act(tx, zoe.name)


def test_what_does_not_fit_is_refused_with_the_reason(db: Database) -> None:
    with db.transaction() as tx:
        insert_user(tx, "zoe", "viewer")
        for name, role, password, why in (
            ("zoe", "viewer", PASSWORD, "there is a user"),
            ("<zoe>", "viewer", PASSWORD, "is not a name"),
            ("", "viewer", PASSWORD, "is not a name"),
            ("ann", "owner", PASSWORD, "is not a role; there are: viewer, editor, admin"),
            ("ann", "viewer", "short", "fewer than 12"),
            ("ann", "viewer", "x" * 201, "more than 200"),
        ):
            with pytest.raises(SegueError, match=why):
                add_user(tx, name, role, password, one_time=False)


def test_nobody_has_the_password_of_an_unknown_name(sqlite_url: str) -> None:
    with closing(Database(sqlite_url)) as db, db.transaction() as tx:
        hashed = stored_hash(tx, "nobody")
    assert not knows_password(hashed, {"password": PASSWORD})
    assert not knows_password(hashed, {"password": "x" * 100_000})
    assert hashed.split("$")[:4] == hash_password(PASSWORD).split("$")[:4], "as slow as others"
    assert len(random_password()) == 20


def test_a_session_ends(db: Database) -> None:
    db.now = 1_000_000
    with db.transaction() as tx:
        insert_user(tx, "zoe", "viewer")
        tokens = [start_session(tx, "zoe") for _ in range(3)]
        stored = tx.conn.execute(text("SELECT * FROM staff_session")).all()
        assert not any(token in str(stored) for token in tokens)
        assert all(session_user(tx, token) for token in tokens)
        assert session_user(tx, "guessed") is None
        end_session(tx, tokens[0])
        assert [session_user(tx, token) is not None for token in tokens] == [False, True, True]
        # The role of now counts, not the one of the sign-in.
        tx.conn.execute(text("UPDATE staff_user SET role = 'admin'"))
        zoe = session_user(tx, tokens[1])
        assert zoe is not None
        assert zoe.role == "admin"
        end_sessions(tx, "zoe")
        assert session_user(tx, tokens[1]) is None
        last = start_session(tx, "zoe")
    db.now += LASTS - 1
    with db.transaction() as tx:
        assert session_user(tx, last)
    db.now += 1
    with db.transaction() as tx:
        assert session_user(tx, last) is None
        start_session(tx, "zoe")
        assert tx.conn.execute(text("SELECT count(*) FROM staff_session")).scalar() == 1


def test_a_session_is_not_for_the_next_user_with_the_name(db: Database) -> None:
    db.now = 1_000_000
    with db.transaction() as tx:
        insert_user(tx, "zoe", "admin")
        token = start_session(tx, "zoe")
        remove_user(tx, "zoe")
        assert session_user(tx, token) is None
    db.now += 60
    with db.transaction() as tx:
        insert_user(tx, "zoe", "admin")
        assert session_user(tx, token) is None


def test_the_log_says_who_did_what_when_to_whom(db: Database) -> None:
    db.now = 1_000_000
    with db.transaction() as tx:
        record_act(tx, "zoe", "looked at a customer", profile_id=7)
        record_act(tx, "zoe", "paused", about="win-back")
        acts = list(latest_acts(tx, 10))
        assert [(one.at, one.name, one.act, one.profile_id, one.about) for one in acts] == [
            (1_000_000, "zoe", "paused", None, "win-back"),
            (1_000_000, "zoe", "looked at a customer", 7, ""),
        ]
        assert list(latest_acts(tx, 10, before=acts[0].id)) == acts[1:]
