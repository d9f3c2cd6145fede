"""Agents: what a version holds, and what changes one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fixloop import traces
from fixloop.agents import MAX_PROMPT, MAX_STORED, AgentIn, AgentPatch, Content, Parameters, fits

CONTENT = Content(name="Bot", system_prompt="Be kind.", model="extractive", parameters={"temperature": 0.2})


def test_a_patch_changes_what_it_names_and_nothing_else() -> None:
    assert AgentPatch().onto(CONTENT) == CONTENT
    assert AgentPatch(name="New").onto(CONTENT) == CONTENT.model_copy(update={"name": "New"})
    assert AgentPatch(systemPrompt="").onto(CONTENT).system_prompt == ""
    assert AgentPatch(parameters=Parameters()).onto(CONTENT).parameters == {}
    assert AgentPatch(parameters=Parameters(topP=0.5)).onto(CONTENT).parameters == {"topP": 0.5}


@pytest.mark.parametrize("field", ["name", "systemPrompt", "model", "parameters"])
def test_nothing_is_set_to_null(field: str) -> None:
    with pytest.raises(ValidationError, match="must not be null"):
        AgentPatch.model_validate({field: None})


def test_an_agent_needs_a_name_only() -> None:
    given_ = AgentIn(name="Bot")
    assert (given_.systemPrompt, given_.model, given_.parameters.given(), given_.number) == ("", "extractive", {}, None)


@pytest.mark.parametrize(
    ("prompt", "fitting"),
    [
        ("x" * MAX_PROMPT, True),
        ("x" * (MAX_PROMPT + 1), False),
        ("語" * ((MAX_STORED - 2) // 3), True),
        ("語" * (MAX_STORED // 3), False),
        ("\x00" * 50_000, False),
        ("\n" * 140_000, True),
    ],
)
def test_a_prompt_fits_by_its_characters_and_by_the_bytes_it_is_stored_in(prompt: str, fitting: bool) -> None:
    assert fits(prompt) is fitting
    if not fitting:
        with pytest.raises(ValidationError):
            AgentIn(name="Bot", systemPrompt=prompt)


parameters: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2),
        "topP": st.floats(0, 1, exclude_min=True),
        "maxTokens": st.integers(1, 200_000),
        "stop": st.lists(st.text(min_size=1, max_size=255), max_size=16),
    },
)


@given(parameters)
def test_an_agents_parameters_are_always_those_a_trace_can_have(chosen: dict[str, Any]) -> None:
    given_ = Parameters.model_validate(chosen).given()
    assert given_ == chosen
    kept = traces.Parameters.model_validate(given_)
    assert kept.model_dump(by_alias=True, exclude_none=True) == chosen
