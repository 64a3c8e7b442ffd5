"""The sandbox responds to any body."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.providers import fcm, postmark, sendgrid
from sandbox.providers.provider_api import ApiCall
from tests.support.proof import cases
from tests.support.providers.sandbox_requests import (
    mail,
    postmark_mail,
    push,
)

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("provider", "base"), [(sendgrid, mail("1")), (postmark, [postmark_mail()]), (fcm, push())]
)
@settings(max_examples=cases(test=60, prove=5000))
@given(data=st.data())
def test_no_body_causes_a_server_error(
    provider: Any, base: dict[str, Any], data: st.DataObject
) -> None:
    """Any value in place of any part of a valid body gets a response, never an exception."""
    body = deepcopy(base)
    part: Any = body
    while True:
        key = data.draw(st.sampled_from(sorted(part) if isinstance(part, dict) else [0]))
        if not (isinstance(part[key], dict | list) and part[key] and data.draw(st.booleans())):
            break
        part = part[key]
    part[key] = data.draw(JSON)
    headers = {
        **{"authorization": "Bearer x", "content-type": "application/json"},
        "x-postmark-server-token": "x",
    }
    encoded = json.dumps(body).encode()  # huge numbers, NaN and lone surrogates included
    answer = provider.answer(
        ApiCall(headers=headers, path={"project": "p"}, body=encoded, now=NOW, opted_out=set())
    )
    assert answer.status in (200, 202, 400, 404, 422)
