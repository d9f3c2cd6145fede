"""The agent that works on triage issues: its sessions, what it is asked, and what it leaves in the timeline."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel
from typing_extensions import TypedDict

from fixloop.triage.activity import Actor, Artifact, Entry, SessionSummary
from fixloop.triage.wire import Detail, derived

Intent = Literal["fix", "verify", "status"]
DESCRIPTION = "Reads the traces behind an issue, drafts a fix from what contradicts their sources, and has it tested."
_INTENTS: dict[str, Intent] = {"fix": "fix", "debug": "fix", "verify": "verify", "status": "status"}


class PromptIn(BaseModel):
    """The body of `POST /v1/triage/issues/{id}/agent-sessions/{session_id}/prompts`."""

    detail: Detail


class Dispatched(TypedDict):
    """What a prompt is answered with: it is queued, its outcome comes in the timeline."""

    session_id: str
    run_id: str
    intent: Intent


class ShownAgent(TypedDict):
    """An agent on the wire."""

    id: str
    provider_type: str
    display_name: str
    description: str | None
    is_active: bool


class Run(BaseModel):
    """A prompt that waits for its answer. Times in ms."""

    id: str
    org: str
    issue_id: str
    session: SessionSummary
    intent: Intent
    text: str
    asked_by: str
    created_at: int


def intent_of(detail: str) -> tuple[Intent, str]:
    """What is asked, told by the first word with or without a slash, and the rest; without one it is a fix."""
    first, _, rest = detail.strip().partition(" ")
    intent = _INTENTS.get(first.removeprefix("/").rstrip(":,.").lower())
    return (intent, rest.strip()) if intent else ("fix", detail.strip())


def mentioned(detail: str, name: str) -> str | None:
    """What a comment says to the agent behind its `@name`, or None when it does not name it."""
    found = re.search(rf"(?<![\w@])@{re.escape(name)}\b[:,]?", detail, re.IGNORECASE)
    return detail[found.end() :].strip() if found else None


def profile(org: str, name: str) -> ShownAgent:
    return {
        "id": derived("triage agent", org),
        "provider_type": "fixloop",
        "display_name": name,
        "description": DESCRIPTION,
        "is_active": True,
    }


def session(session_id: str, org: str, name: str) -> SessionSummary:
    about = profile(org, name)
    return {"id": session_id, "agent_profile_id": about["id"], "agent_name": name, "status": "active"}


def actor(summary: SessionSummary) -> Actor:
    return {"kind": "agent", "id": summary["agent_profile_id"], "label": summary["agent_name"], "avatar_url": None}


@dataclass
class Log:
    """What a run leaves in the timeline, in its order."""

    run: Run
    entries: list[Entry] = field(default_factory=list)

    def thought(self, text: str) -> None:
        self._add("thought", text)

    def action(self, text: str, **about: Any) -> None:
        self._add("action", text, about)

    def response(self, text: str) -> None:
        self._add("response", text)

    def error(self, text: str) -> None:
        self._add("error", text)

    def artifact(self, kind: str, artifact_id: str, title: str, payload: dict[str, Any], *, ready: bool) -> None:
        made: Artifact = {
            "id": artifact_id,
            "type": kind,
            "title": title,
            "renderer": "json",
            "status": "ready" if ready else "pending",
            "payload": payload,
            "external_urls": [],
        }
        self._add("artifact", title, {}, made)

    @property
    def failed(self) -> bool:
        return any(entry.type == "error" for entry in self.entries)

    def _add(
        self,
        kind: Literal["thought", "action", "response", "artifact", "error"],
        text: str,
        about: dict[str, Any] | None = None,
        artifact: Artifact | None = None,
    ) -> None:
        self.entries.append(
            Entry(
                type=kind,
                actor=actor(self.run.session),
                detail=text,
                metadata={"run_id": self.run.id, **(about or {})},
                session=self.run.session,
                artifact=artifact,
            )
        )
