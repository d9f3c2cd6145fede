"""Asking a model: what is asked, what comes back, what can go wrong, and which model a name stands for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from fixloop.errors import Invalid
from fixloop.traces import Document, Message, Parameters

DEFAULT = "extractive"
TIMEOUT = 60.0  # seconds for one attempt, unless the caller has less left
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_MODEL = re.compile(r"[\x21-\x7e]{1,255}")

Finish = Literal["stop", "length", "other"]


@dataclass(frozen=True)
class Prompt:
    """What a model is asked. `messages` end with the one to answer; `context` is what it may answer from."""

    system: str
    messages: list[Message]
    context: list[Document] = field(default_factory=list)
    parameters: Parameters = field(default_factory=Parameters)

    @property
    def question(self) -> str:
        return next((message.content for message in reversed(self.messages) if message.role == "user"), "")

    def instructions(self) -> str:
        """The system prompt with the context behind it, for models that take one text."""
        if not self.context:
            return self.system
        documents = "\n\n".join(f"[{document.id}]\n{document.text}" for document in self.context)
        return f"{self.system}\n\nContext:\n\n{documents}".lstrip()


@dataclass(frozen=True)
class Completion:
    """What a model answered. Token counts are the provider's where it gives them."""

    text: str
    input_tokens: int
    output_tokens: int
    latency_ms: int
    finish_reason: Finish = "stop"


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    input: float
    output: float

    def of(self, input_tokens: int, output_tokens: int) -> float:
        return round((input_tokens * self.input + output_tokens * self.output) / 1_000_000, 8)


class ModelError(Exception):
    """A model did not answer. `message` is safe to show; `retry_after` in seconds where the provider named one."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class Throttled(ModelError):
    """Too many requests (429): worth another try, not before `retry_after`."""


class ModelUnavailable(ModelError):
    """No answer, a broken one, none in time (`slow`), or a 5xx: worth another try."""

    def __init__(self, message: str, retry_after: float | None = None, *, slow: bool = False) -> None:
        super().__init__(message, retry_after)
        self.slow = slow


class ModelRefused(ModelError):
    """The model, or its provider, will not answer this: asking again changes nothing."""


class Model(Protocol):
    """Anything that answers a prompt."""

    def complete(self, prompt: Prompt, *, timeout: float = TIMEOUT) -> Completion:
        """Answers within `timeout` seconds. Raises Throttled, ModelUnavailable or ModelRefused; thread-safe."""


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible endpoint that an administrator has set up under a name.

    The prices are what its provider asks, in US dollars per million tokens.
    """

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    input_price: float | None = None
    output_price: float | None = None


Endpoints = Callable[[str], Endpoint | None]


def well_named(endpoint: str) -> bool:
    """Whether an endpoint may have this name."""
    return bool(_NAME.fullmatch(endpoint))


def well_formed(spec: str) -> bool:
    """Whether `spec` has one of the forms `extractive`, `bedrock:<model id>` and `openai:<name>/<model>`."""
    kind, _, rest = spec.partition(":")
    if kind == "openai":
        name, _, model = rest.partition("/")
        return bool(well_named(name) and _MODEL.fullmatch(model))
    return spec == DEFAULT or (kind == "bedrock" and bool(_MODEL.fullmatch(rest)))


def named(spec: str, endpoints: Endpoints | None = None) -> Model:
    """The model that `spec` names; `endpoints` knows the OpenAI-compatible ones of the caller's organisation.

    Raises Invalid naming `model`.
    """
    if not well_formed(spec):
        raise Invalid({"model": ['must be "extractive", "bedrock:<model id>" or "openai:<name>/<model>"']})
    kind, _, rest = spec.partition(":")
    if kind == DEFAULT:
        from fixloop.models.extractive import Extractive

        return Extractive()
    if kind == "bedrock":
        from fixloop.models.bedrock import Bedrock

        return Bedrock(rest)
    from fixloop.models.openai import OpenAI

    name, _, model = rest.partition("/")
    endpoint = endpoints(name) if endpoints else None
    if endpoint is None:
        raise Invalid({"model": [f'there is no model endpoint "{name}"; add it with: fixloop models add {name}']})
    return OpenAI(endpoint, model)


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has, where no provider counts them: four characters each."""
    return (len(text) + 3) // 4
