"""User tokens: who is named, until when, and that nobody else can make one."""

import pytest
from pydantic import SecretStr

from config.access.user_tokens import fault_of, user_token

SECRET = SecretStr("a-secret-of-the-shop")
NOW = 1_772_445_600
TOKEN = user_token(SECRET, "u-1042", NOW + 60)


def test_a_token_names_its_user_until_it_expires() -> None:
    assert fault_of(TOKEN, SECRET, "u-1042", NOW) is None
    assert fault_of(TOKEN, SECRET, "u-1042", NOW + 59) is None
    assert fault_of(TOKEN, SECRET, "u-1042", NOW + 60) == "context.userToken has expired"


def test_the_token_is_the_hmac_of_expiry_and_user_id() -> None:
    """A fixed value, so that tokens of other languages can be compared with it."""
    token = user_token(SecretStr("a-secret-of-the-shop"), "u-1042", 1772449200)
    assert token == ("1772449200.93af6572d586acc2f1da37d1a9682fd635decfc7bf97d9bdd545509102ff39b0")


@pytest.mark.parametrize(
    "token",
    [
        *(None, 7, {}, "", ".", "x", TOKEN.partition(".")[2], TOKEN.upper() + "0", TOKEN[:-1]),
        *(f"{NOW + 120}.{TOKEN.partition('.')[2]}", "1" * 13 + ".00", "\u0661.00", "-1.00"),
        user_token(SecretStr("another-secret-of-16"), "u-1042", NOW + 60),
        user_token(SECRET, "u-1043", NOW + 60),
    ],
)
def test_no_other_token_names_anybody(token: object) -> None:
    assert fault_of(token, SECRET, "u-1042", NOW) is not None


def test_without_a_secret_nobody_is_named() -> None:
    empty = SecretStr("")
    assert fault_of(user_token(empty, "u", NOW + 60), empty, "u", NOW) == (
        "SEGUE_USER_TOKEN_SECRET is not set"
    )
