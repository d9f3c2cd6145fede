"""What a model costs, where that is known."""

from __future__ import annotations

from collections.abc import Callable

from fixloop.models import DEFAULT, Endpoint, Price


def price(spec: str, endpoints: Callable[[str], Endpoint | None] | None = None) -> Price | None:
    """US dollars per million tokens of the model that `spec` names, or None where no price is known."""
    if spec == DEFAULT:
        return Price(0.0, 0.0)
    kind, _, rest = spec.partition(":")
    found = endpoints(rest.partition("/")[0]) if endpoints and kind == "openai" else None
    if found is None or found.input_price is None or found.output_price is None:
        return None
    return Price(found.input_price, found.output_price)
