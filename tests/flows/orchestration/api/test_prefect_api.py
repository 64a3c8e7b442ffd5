"""Prefect's server is busy for a while: a request is sent again."""

import asyncio

import httpx
import pytest
import respx

from flows.orchestration.api.prefect_api import AsyncPatientClient, PatientClient

URL = "http://127.0.0.1:4200/api/deployments/1"


def sent_by(is_async: bool) -> httpx.Response:
    async def send() -> httpx.Response:
        async with AsyncPatientClient(busy_pause=0) as http:
            return await http.patch(URL, json={"paused": True})

    if is_async:
        return asyncio.run(send())
    with PatientClient(busy_pause=0) as http:
        return http.patch(URL, json={"paused": True})


@pytest.mark.parametrize("is_async", [False, True])
def test_a_request_is_sent_again_while_the_server_is_busy(
    respx_mock: respx.Router, is_async: bool
) -> None:
    busy = httpx.Response(503)
    route = respx_mock.patch(URL).mock(side_effect=[busy, busy, httpx.Response(204)])
    assert sent_by(is_async).status_code == 204
    assert [call.request.content for call in route.calls] == [b'{"paused":true}'] * 3


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("status", [200, 404, 409, 500])
def test_other_answers_are_final(respx_mock: respx.Router, is_async: bool, status: int) -> None:
    route = respx_mock.patch(URL).mock(return_value=httpx.Response(status))
    assert sent_by(is_async).status_code == status
    assert route.call_count == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_a_server_that_stays_busy_is_reported(respx_mock: respx.Router, is_async: bool) -> None:
    respx_mock.patch(URL).mock(return_value=httpx.Response(503))
    assert sent_by(is_async).status_code == 503
