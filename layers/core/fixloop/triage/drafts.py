"""What the agent of triage reads out of traces, and the fix that it drafts from it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fixloop import statements
from fixloop.changes import FixType
from fixloop.grounding import Sources, UnsupportedClaim, unsupported_claims
from fixloop.statements import Statement
from fixloop.traces import Trace
from fixloop.triage.corrections import Fact, contradicts, corrected, states

READ = 20  # traces read for one draft
QUOTED = 3  # sources quoted in one prompt fix


@dataclass(frozen=True)
class Finding:
    """A claim of an answer that its sources do not bear out, or that the answer expected of it contradicts.

    `source` is the sentence that says otherwise. `stale` is the id of the document that says the same but is out of
    date, `outdated` its sentence. Both None where no source speaks of it.
    """

    trace_id: str
    said: str
    sentence: str
    source: str | None
    stale: str | None = None
    outdated: str | None = None


def findings(trace: Trace) -> list[Finding]:
    """What the recorded answer claims against prompt, context and the expected answer, each claim once."""
    texts = [trace.system_prompt, *(document.text for document in trace.context)]
    read = statements.read(texts, instructions=[0])
    valid = [one for one in read if one.superseded_by is None]
    old = [one for one in read if one.superseded_by is not None]
    found: dict[str, Finding] = {}
    for claim in unsupported_claims(trace.recorded_response, Sources([one.text for one in valid]), trace.user_message):
        outdated = next((one for one in old if any(value.text == claim.said for value in one.found)), None)
        newer = outdated.superseded_by if outdated else None
        source = claim.source.strip() if claim.source else newer.text if newer else None
        found.setdefault(claim.said, _finding(trace, claim, source, outdated))
    for claim in unsupported_claims(trace.recorded_response, Sources([trace.reference or ""]), trace.user_message):
        if claim.source and claim.said not in found:
            held = statements.read([claim.source])
            stating = [one for one in read if not one.is_heading and states(one, claim.said)]
            wrong = (one for one in stating if any(contradicts(one, other, claim.claim) for other in held))
            found[claim.said] = _finding(trace, claim, claim.source.strip(), next(wrong, None))
    return list(found.values())


def _finding(trace: Trace, claim: UnsupportedClaim, source: str | None, outdated: Statement | None) -> Finding:
    return Finding(
        trace_id=trace.id,
        said=claim.said,
        sentence=claim.claim.strip(),
        source=source,
        stale=trace.context[outdated.source - 1].id if outdated and outdated.source else None,
        outdated=outdated.text if outdated else None,
    )


@dataclass(frozen=True)
class Draft:
    """A fix before it is stored."""

    type: FixType
    changes: dict[str, Any]
    description: str
    reason: str


def draft(found: Sequence[Finding], traces: Sequence[Trace], name: str, prompt: str) -> Draft | None:
    """The fix for what the traces have in common, or None when nothing in them contradicts their sources.

    Documents that are out of date lose the sentences that are. Otherwise sentences of the agent's `prompt` that
    contradict what holds give way to it, and the prompt is told, in the words of the sources that were contradicted,
    what holds and does not stand in it then; where no source speaks of it, not to claim it.
    """
    if not found:
        return None
    stale = [one for one in found if one.stale]
    if stale:
        return _without_stale(stale, traces, name)
    if any(one.source for one in found):
        return _with_what_holds(found, name, prompt)
    claims = Counter(_line(one.said) for one in found)
    told = [said for said, _ in claims.most_common(QUOTED)]
    lines = [f'+ Do not say "{said}": no source does. Say that you do not know instead.' for said in told]
    listed = ", ".join(f'"{said}"' for said in told)
    return Draft(
        type="prompt_update",
        changes={"promptDiff": "\n".join(lines)},
        description=f"Drafted by {name}: no source says {listed}.",
        reason=f"No source speaks of {listed}, so the prompt should keep the agent from claiming it.",
    )


def _with_what_holds(found: Sequence[Finding], name: str, prompt: str) -> Draft:
    quotes = Counter(_line(one.source) for one in found if one.source)
    told = [quote for quote, _ in quotes.most_common(QUOTED)]
    facts = [Fact(one.said, one.sentence, one.source) for one in found if one.source and _line(one.source) in told]
    said = "; ".join(f'"{quote}" ({quotes[quote]} of the claims read)' for quote in told)
    made = corrected(prompt, facts)
    stated = {_line(one) for one in made.stated} if made else set()
    missing = [_stating(quote) for quote in told if quote not in stated]
    if made and missing:
        made = corrected(prompt, facts, missing)
    if made is None:
        return Draft(
            type="prompt_update",
            changes={"promptDiff": "\n".join(f"+ {_stating(quote)}" for quote in told)},
            description=f"Drafted by {name}: the answers contradict {said}.",
            reason=f"The sources say otherwise: {said}. The prompt should quote them.",
        )
    outdated = "; ".join(f'"{_line(sentence)}"' for sentence in made.outdated)
    return Draft(
        type="prompt_update",
        changes={"promptDiff": made.diff},
        description=f"Drafted by {name}: the prompt still says {outdated}. What holds is {said}.",
        reason=f"The answers repeat what is out of date in the prompt: {outdated}. What holds is {said}.",
    )


def _stating(quote: str) -> str:
    return f'State this as the source has it, and nothing else: "{quote}"'


def _without_stale(stale: Sequence[Finding], traces: Sequence[Trace], name: str) -> Draft:
    sentences: dict[str, dict[str, str]] = {}
    texts = {document.id: document.text for trace in traces for document in trace.context}
    known = [*texts.values(), *(trace.system_prompt for trace in traces)]
    for one in stale:
        if one.outdated:
            instead = one.source if one.source and not any(one.source in text for text in known) else ""
            sentences.setdefault(one.stale or "", {}).setdefault(one.outdated, instead)
    changes: dict[str, Any] = {}
    for document, outdated in sentences.items():
        text = texts[document]
        for sentence, instead in outdated.items():
            text = text.replace(sentence, instead)
        if text.strip():
            changes.setdefault("replace", {})[document] = re.sub(r"[ \t]{2,}", " ", text).strip()
        else:
            changes.setdefault("remove", []).append(document)
    quoted = "; ".join(f'{document}: "{" ".join(map(_line, outdated))}"' for document, outdated in sentences.items())
    newer = Counter(_line(one.source) for one in stale if one.source).most_common(1)
    instead = f' What holds is "{newer[0][0]}".' if newer else ""
    return Draft(
        type="retrieval_update",
        changes=changes,
        description=f"Drafted by {name}: outdated text is retrieved ({quoted}).{instead}",
        reason=f"The answers repeat what is out of date in {quoted}.{instead} It should not be retrieved any more.",
    )


def _line(text: str) -> str:
    """On one line, without the marks that would end a quotation."""
    return " ".join(text.split()).replace('"', "'")[:300]
