"""Logs as JSON lines without bodies or keys, and the few numbers that someone would want an alarm on."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger

if TYPE_CHECKING:
    from aws_lambda_powertools import Metrics


@cache
def logger() -> Logger:
    """Level and service name come from Powertools' own environment variables."""
    return Logger()


@cache
def _metrics() -> Metrics:
    from aws_lambda_powertools import Metrics  # a request that only reads counts nothing

    return Metrics(namespace="fixloop", service=os.environ.get("POWERTOOLS_SERVICE_NAME", "fixloop"))


def count(name: str, value: int = 1) -> None:
    """Adds to a CloudWatch metric, written as an EMF line at once."""
    metrics = _metrics()
    metrics.add_metric(name=name, unit="Count", value=value)
    metrics.flush_metrics()
