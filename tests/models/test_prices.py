"""What models cost."""

import pytest

from fixloop.models import Endpoint, Price
from fixloop.models.prices import price

ENDPOINTS = {
    "priced": Endpoint("https://a/v1", None, 0.5, 1.5),
    "free": Endpoint("https://a/v1", None, 0.0, 0.0),
    "unpriced": Endpoint("https://a/v1"),
}.get


@pytest.mark.parametrize(
    ("spec", "known"),
    [
        ("extractive", Price(0, 0)),
        ("bedrock:amazon.nova-lite-v1:0", Price(0.06, 0.24)),
        ("bedrock:anthropic.claude-haiku-4-5-20251001-v1:0", Price(1, 5)),
        ("bedrock:global.anthropic.claude-haiku-4-5-20251001-v1:0", Price(1, 5)),
        ("bedrock:us.anthropic.claude-haiku-4-5-20251001-v1:0", Price(1.1, 5.5)),
        ("bedrock:eu.anthropic.claude-sonnet-4-6", Price(3.3, 16.5)),
        ("bedrock:eu.amazon.nova-lite-v1:0", None),
        ("bedrock:jp.anthropic.claude-sonnet-4-6", None),
        ("bedrock:anthropic.claude-sonnet", None),
        ("openai:priced/m", Price(0.5, 1.5)),
        ("openai:priced/vendor/m", Price(0.5, 1.5)),
        ("openai:free/m", Price(0, 0)),
        ("openai:unpriced/m", None),
        ("openai:nobody/m", None),
        ("", None),
    ],
)
def test_a_price_is_known_or_not(spec: str, known: Price | None):
    assert price(spec, ENDPOINTS) == known


def test_a_price_says_what_tokens_cost():
    assert Price(0.5, 1.5).of(1_000_000, 2_000) == 0.503
