"""What clients fetch before they send: without it, most of them send nothing."""

from tests.support.http.receiving import SHOP, WRITE_KEY, made_key, names, problem, receiving
from tests.support.shop import House


def test_settings_of_segments_clients(house: House) -> None:
    house.open(public_url="https://segue.shop.example")
    key = made_key(house)
    with receiving(house.segue) as receiver:
        for path in (f"/v1/projects/{key}/settings", f"/projects/{key}/settings"):
            answer = receiver.client.get(path, headers={"Origin": SHOP})
            assert answer.status_code == 200
            assert answer.headers["Access-Control-Allow-Origin"] == SHOP
            integration = {"apiKey": key, "apiHost": "segue.shop.example/v1"}
            assert answer.json() == {
                "integrations": {"Segment.io": integration},
                "metrics": {"sampleRate": 0},
            }
        assert receiver.client.get(f"/v1/projects/{key}/settings").headers["Vary"] == "Origin"


def test_settings_of_a_local_receiver_name_its_scheme(house: House) -> None:
    """The browser's library posts to https:// otherwise."""
    house.open()
    key = made_key(house)
    with receiving(house.segue) as receiver:
        answer = receiver.client.get(f"/v1/projects/{key}/settings").json()
    assert answer["integrations"]["Segment.io"] == {
        "apiKey": key,
        "apiHost": "127.0.0.1:8080/v1",
        "protocol": "http",
    }


def test_configuration_of_rudderstacks_client(house: House) -> None:
    house.open()
    key = made_key(house)
    with receiving(house.segue) as receiver:
        for path in ("/sourceConfig/?p=npm&v=3.34.0&build=modern", "/sourceConfig?p=npm"):
            answer = receiver.client.get(path, auth=(key, ""))
            assert answer.status_code == 200
            source = answer.json()["source"]
            assert source["id"]
            assert (source["config"], source["destinations"]) == ({}, [])
        answer = receiver.client.get(f"/sourceConfig/?writeKey={key}")
        assert answer.status_code == 200


def test_settings_exist_for_public_keys_only(house: House) -> None:
    house.open()
    server = made_key(house, "crm", public=False)
    with receiving(house.segue) as receiver:
        for key in (server, WRITE_KEY, "wrong"):
            answer = receiver.client.get(f"/v1/projects/{key}/settings")
            problem(answer, 401, "not_signed_in")
            problem(receiver.client.get("/sourceConfig/", auth=(key, "")), 401, "not_signed_in")
        problem(receiver.client.get("/sourceConfig/"), 401, "not_signed_in")


def test_metrics_of_clients_are_dropped(house: House) -> None:
    house.open()
    with receiving(house.segue) as receiver:
        metrics = {"series": [{"type": "Counter", "metric": "analytics_js.invoke", "value": 1}]}
        assert receiver.client.post("/v1/m", json=metrics).status_code == 200
        problem(receiver.client.post("/v1/m", content=b"x" * 70_000), 413, "too_large")
        assert receiver.told == 0
    assert names(house) == []
