"""The API's description: valid, complete, and shown without anything from outside this machine."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema


@pytest.fixture
def schema() -> Any:
    GENERATOR_STATS.reset()
    return SchemaGenerator().get_schema(request=None, public=True)


def test_the_description_is_valid_and_complains_of_nothing(schema: Any) -> None:
    validate_schema(schema)
    assert not GENERATOR_STATS
    assert len(schema["paths"]) >= 18


def test_every_way_to_write_shows_an_example_and_every_one_its_problem(schema: Any) -> None:
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            assert "application/problem+json" in operation["responses"]["default"]["content"], path
            if method in ("post", "put", "patch") and path != "/api/v1/policies/{number}/validate":  # takes no body
                assert operation["requestBody"]["content"]["application/json"]["examples"], path


def test_plans_are_described_in_detail(schema: Any) -> None:
    parts = schema["components"]["schemas"]
    assert set(parts["Plan"]["properties"]) >= {"stop_loss", "take_profits"}
    assert "Problem" in parts


@pytest.mark.parametrize("path", ["/api/v1/docs", "/admin/login/"])
def test_pages_load_nothing_from_elsewhere(path: str, db: None) -> None:
    page = Client().get(path).content.decode()
    loaded = [part.split('"', 1)[0] for name in ("src", "href") for part in page.split(f'{name}="')[1:]]
    assert loaded
    assert [address for address in loaded if address.startswith(("http", "//"))] == []


def test_the_root_leads_to_the_desk_and_the_api_to_its_description() -> None:
    assert Client().get("/").headers["Location"] == "/admin/"
    assert Client().get("/api/v1/").headers["Location"] == "/api/v1/docs"
