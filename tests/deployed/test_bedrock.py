"""Bedrock's Converse operation as the deployed stack serves it, asked by many threads at once."""

from __future__ import annotations

import pytest

from deployed.world import World, at_once
from fixloop.aws import clients_from
from fixloop.models import Prompt, named
from fixloop.traces import Document, Message, Parameters

pytestmark = [pytest.mark.deployed, pytest.mark.xdist_group("deployed")]

PROMPT = Prompt(
    "Answer from the context.",
    [
        Message(role="user", content="Hello."),
        Message(role="assistant", content="How can I help?"),
        Message(role="user", content="How long may I return it?"),
    ],
    [Document(id="policy", text="Returns are accepted for 30 days.")],
    Parameters(temperature=0, max_tokens=100, stop=["END"]),
)


def test_bedrock_answers_many_threads(world: World):
    runtime = world.client("bedrock-runtime")
    with clients_from(lambda service: runtime):
        model = named("bedrock:amazon.nova-lite-v1:0")
        answers = at_once(lambda _: model.complete(PROMPT, timeout=20), range(100), clients=50)
    assert len(answers) == 100
    for answer in answers:
        assert answer.text
        assert answer.input_tokens > 0
        assert answer.output_tokens > 0
        assert answer.finish_reason in ("stop", "length")
    assert len({answer.text for answer in answers}) == 1, "the same question has the same answer there"
