"""The environment as a typed model: a misconfigured function dies at its first call and names the variable."""

from __future__ import annotations

import os
from functools import cache

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """One field per environment variable that `template.yaml` sets, in lower case."""

    model_config = ConfigDict(frozen=True)

    platform_table: str
    calls_table: str
    issue_reports_table: str
    agents_table: str
    traces_table: str
    issues_table: str
    fixes_table: str
    shadow_tests_table: str
    shadow_test_machine: str
    app_issues_table: str
    call_reports_table: str
    triage_table: str
    bus_name: str
    blobs_bucket: str
    stage: str
    aws_region: str
    silence_seconds: float = Field(gt=0)
    replay_batch_size: int = Field(default=500, ge=1, le=1000)
    replay_concurrency: int = Field(default=50, ge=1, le=500)
    triage_agent_name: str = Field(default="Norm", min_length=1)
    grouping_threshold: int = Field(default=3, ge=1)
    max_body_bytes: int = 1024 * 1024
    key_cache_seconds: int = Field(default=30, le=60)


@cache
def settings() -> Settings:
    """Raises pydantic's ValidationError naming every variable that is missing or wrong."""
    return Settings.model_validate({name.lower(): value for name, value in os.environ.items() if value != ""})
