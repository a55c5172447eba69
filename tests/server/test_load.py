"""A small share of bench.server_fuzz and bench.server_load; the whole of them is for `make server-load`."""
import asyncio

import httpx
import pytest

from bench.server_fuzz import fuzz, judge
from bench.server_load import measure


def test_no_request_brings_a_500(server):
    result = asyncio.run(fuzz(server.url, 300, seed=2))
    assert result["wrong"] == [] and result["alive"] and result["statuses"][200] > 30 and result["statuses"][400] > 30


@pytest.mark.parametrize("response", [httpx.Response(500, json={"error": {}}), httpx.Response(404, text="not here"),
                                      httpx.Response(400, json={"error": {"message": "x"}}),
                                      httpx.Response(200, headers={"content-type": "text/event-stream"},
                                                     text="data: {}\n\n")])
def test_the_judge_sees(response):
    assert judge("POST", response)


def test_answers_under_load_are_nobody_else_s(image):
    result = measure(image, clients=16, requests=80, copies=2, queue=3, seed=3)
    assert result["failures"] == [] and result["answered"] > 20 and result["left"] > 5
