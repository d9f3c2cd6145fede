"""Models on Amazon Bedrock, by the Converse operation."""

from __future__ import annotations

import threading
import time
from typing import Any

from fixloop.models import (
    TIMEOUT,
    Completion,
    Finish,
    ModelRefused,
    ModelUnavailable,
    Prompt,
    Throttled,
    estimated_tokens,
)

_FINISH: dict[str, Finish] = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}
_THROTTLES = frozenset({"ThrottlingException", "TooManyRequestsException", "ModelNotReadyException"})
_FAILURES = frozenset(
    {
        "InternalServerException",
        "ModelErrorException",
        "ModelStreamErrorException",
        "ModelTimeoutException",
        "ServiceUnavailableException",
    }
)
_PATIENCE = (1, 2, 4, 8, 12, 16, 20, 24, 28, 45, 60, 120)
"""Seconds that a client may wait for an answer. There is one client for each that is asked for."""
_making = threading.Lock()


class Bedrock:
    """A Bedrock model or inference profile. All threads share the clients, which are made when first needed."""

    def __init__(self, model_id: str, client: Any = None) -> None:
        self.model_id = model_id
        self._client = client

    def complete(self, prompt: Prompt, *, timeout: float = TIMEOUT) -> Completion:
        """Raises Throttled, ModelUnavailable or ModelRefused. The answer is waited for as long as `timeout`, rounded
        down to 1, 2, 4, 8, 12, 16, 20, 28, 45, 60 or 120 s; connecting may take 2 s more.
        """
        from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

        started = time.monotonic()
        try:
            answer = self._connected(timeout).converse(**self._request(prompt))
        except ClientError as error:
            raise _refusal(error.response) from None
        except ReadTimeoutError:
            raise ModelUnavailable("Bedrock did not answer in time.", slow=True) from None
        except BotoCoreError as error:
            raise ModelUnavailable(f"Bedrock could not be reached ({type(error).__name__}).") from None
        return _completion(answer, prompt, round((time.monotonic() - started) * 1000))

    def _connected(self, timeout: float) -> Any:
        if self._client is not None:
            return self._client
        from fixloop import aws

        seconds = max((one for one in _PATIENCE if one <= timeout), default=_PATIENCE[0])
        with _making:
            return aws.client("bedrock-runtime", seconds)

    def _request(self, prompt: Prompt) -> dict[str, Any]:
        wanted = prompt.parameters
        inference = {
            "temperature": wanted.temperature,
            "topP": wanted.top_p,
            "maxTokens": wanted.max_tokens,
            "stopSequences": wanted.stop or None,
        }
        request: dict[str, Any] = {"modelId": self.model_id, "messages": turns(prompt)}
        if (system := prompt.instructions()).strip():
            request["system"] = [{"text": system}]
        if given := {name: value for name, value in inference.items() if value is not None}:
            request["inferenceConfig"] = given
        return request


def turns(prompt: Prompt) -> list[dict[str, Any]]:
    """The messages as Converse wants them: none empty, user and assistant in turns, a user first."""
    out: list[dict[str, Any]] = []
    for message in prompt.messages:
        role = "assistant" if message.role == "assistant" else "user"
        if not message.content.strip():
            continue
        if out and out[-1]["role"] == role:
            out[-1]["content"].append({"text": message.content})
        else:
            out.append({"role": role, "content": [{"text": message.content}]})
    if not out or out[0]["role"] == "assistant":
        out.insert(0, {"role": "user", "content": [{"text": "(The conversation begins.)"}]})
    return out


def _refusal(response: Any) -> Throttled | ModelUnavailable | ModelRefused:
    code = str(response.get("Error", {}).get("Code") or "")
    about = response.get("ResponseMetadata", {})
    status = about.get("HTTPStatusCode")
    if code in _THROTTLES or status == 429:
        after = str(about.get("HTTPHeaders", {}).get("retry-after") or "")
        return Throttled("Bedrock is throttling.", float(after) if after.isdigit() else None)
    if code in _FAILURES or (isinstance(status, int) and status >= 500):
        return ModelUnavailable(f"Bedrock failed ({code}).")
    return ModelRefused(f"Bedrock refused the request ({code}).")


def _completion(answer: Any, prompt: Prompt, latency_ms: int) -> Completion:
    try:
        parts = answer["output"]["message"]["content"]
        text = "".join(part["text"] for part in parts if "text" in part)
    except (KeyError, TypeError):
        raise ModelUnavailable("Bedrock's answer has no message.") from None
    reason = str(answer.get("stopReason"))
    if not text and reason in ("content_filtered", "guardrail_intervened"):
        raise ModelRefused(f"Bedrock withheld the answer ({reason}).")
    usage = answer.get("usage") or {}
    asked = prompt.instructions() + "".join(message.content for message in prompt.messages)
    return Completion(
        text=text,
        input_tokens=int(usage.get("inputTokens") or estimated_tokens(asked)),
        output_tokens=int(usage.get("outputTokens") or estimated_tokens(text)),
        latency_ms=int((answer.get("metrics") or {}).get("latencyMs") or latency_ms),
        finish_reason=_FINISH.get(reason, "other"),
    )
