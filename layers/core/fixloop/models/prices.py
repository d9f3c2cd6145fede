"""What a model costs, where that is known."""

from __future__ import annotations

from fixloop.models import DEFAULT, Endpoints, Price

_BEDROCK = {
    "amazon.nova-micro-v1:0": Price(0.035, 0.14),
    "amazon.nova-lite-v1:0": Price(0.06, 0.24),
    "amazon.nova-pro-v1:0": Price(0.8, 3.2),
    "anthropic.claude-haiku-4-5-20251001-v1:0": Price(1.0, 5.0),
    "anthropic.claude-opus-4-8": Price(5.0, 25.0),
    "anthropic.claude-sonnet-4-6": Price(3.0, 15.0),
    "anthropic.claude-sonnet-5": Price(2.0, 10.0),
}
"""On demand in us-east-1, as the price table of AWS's own agent toolkit gave it on 2026-10-05."""
_NEARBY = 1.1
"""Claude by way of an inference profile of one part of the world, for the price of the model itself."""
_PROFILES = ("us", "eu")


def price(spec: str, endpoints: Endpoints | None = None) -> Price | None:
    """US dollars per million tokens of the model that `spec` names, or None where no price is known.

    The built-in model is free, endpoints cost what their administrator says, and for some Bedrock models the price on
    demand in us-east-1 on 2026-10-05 is known.
    """
    kind, _, rest = spec.partition(":")
    if spec == DEFAULT:
        return Price(0.0, 0.0)
    if kind == "bedrock":
        return _bedrock(rest)
    found = endpoints(rest.partition("/")[0]) if endpoints and kind == "openai" else None
    if found is None or found.input_price is None or found.output_price is None:
        return None
    return Price(found.input_price, found.output_price)


def _bedrock(model_id: str) -> Price | None:
    place, _, model = model_id.partition(".")
    if place == "global":
        return _BEDROCK.get(model) if model.startswith("anthropic.") else None
    known = _BEDROCK.get(model) if place in _PROFILES and model.startswith("anthropic.") else None
    if known:
        return Price(round(known.input * _NEARBY, 4), round(known.output * _NEARBY, 4))
    return _BEDROCK.get(model_id)
