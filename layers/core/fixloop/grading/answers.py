"""Detector of answers that the agent's prompt contradicts, or that come from nowhere."""

import hashlib
from collections import Counter
from collections.abc import Iterator

from fixloop.grading.conversation import Conversation, Row, flattened
from fixloop.grading.findings import GraderSettings
from fixloop.grading.occurrences import Occurrence, quoted, slug
from fixloop.grounding import Finding, Known, Sources, Sums, content_words, findings, is_question, sentences, values


def unsupported_answer(talk: Conversation, _: GraderSettings) -> Iterator[Occurrence]:
    """The agent states a value that its prompt contradicts (critical) or that it has from nowhere (warning)."""
    if not talk.call.prompt_snapshot.strip():
        return
    sources = Sources([talk.call.prompt_snapshot])
    given, asserted = Known(), Known()
    for row in talk.rows:
        if row.speaker in ("tool_call", "tool_response", "system"):
            given.add(values(row.text if row.payload is None else flattened(row.payload)))
        elif row.speaker == "user":
            for start, end in sentences(row.text):
                said = row.text[start:end]
                asks = is_question(said) or said.rstrip().endswith("?")
                asserted.add(v for v in values(said) if not asks or v.kind in ("number", "date"))
    given.close()
    asserted.close()
    sums = Sums(sources.known, given, asserted)
    refs: dict[str, str] | None = None
    for row in talk.agent:
        asked = talk.user_before.get(row.position)
        for found in findings(row.text, sources, asked.text if asked else "", given, asserted, sums):
            refs = _contradiction_refs(sources) if refs is None else refs
            yield _unsupported(found, row, asked, refs)


def _unsupported(found: Finding, row: Row, asked: Row | None, refs: dict[str, str]) -> Occurrence:
    claim = found.claim
    others = (asked,) if asked else ()
    if claim.source is None:
        return Occurrence(
            "unsupported-answer",
            "Agent stated something its prompt does not say",
            "warning",
            f"The agent said \"{claim.said}\", which is in neither the prompt, the caller's words nor a tool's reply.",
            row,
            (quoted(row.text, found.offset),),
            others,
            metadata={"said": claim.said, "kind": claim.kind},
        )
    right = ", ".join(claim.supported_values)
    return Occurrence(
        refs.get(claim.source, "contradicts-prompt"),
        f"Agent contradicted its prompt: said {claim.said[:60]}, prompt says {right[:100]}",
        "critical",
        f'The agent said "{claim.said}"; the prompt says "{quoted(claim.source)}".',
        row,
        (quoted(row.text, found.offset), quoted(claim.source)),
        others,
        metadata={"said": claim.said, "kind": claim.kind, "source": quoted(claim.source), "prompt_says": right},
    )


def _contradiction_refs(sources: Sources) -> dict[str, str]:
    """A ref for each source sentence that states a value, made of its subject and its unit but not of the value.

    Sentences that would share a ref are told apart by a hash of their text.
    """
    slugs: dict[str, str] = {}
    for one in sources.sentences:
        if one.values and one.text not in slugs:
            rest = one.text
            for v in reversed(one.values):
                rest = f"{rest[: v.start]} {rest[v.end :]}"
            subject = [slug(w) for w in content_words(rest)]
            first = next((v for v in one.values if v.kind != "number"), one.values[0])
            unit = {"duration": first.unit + "s", "date": first.unit, "money": "price", "percent": "percent"}
            words = list(dict.fromkeys(w for w in subject if w))[:3]
            slugs[one.text] = "-".join([*words, unit.get(first.kind, "number")])
    shared = Counter(slugs.values())
    return {
        text: f"contradicts-prompt:{slug}"
        + (f"-{hashlib.sha256(text.lower().encode(errors='replace')).hexdigest()[:6]}" if shared[slug] > 1 else "")
        for text, slug in slugs.items()
    }
