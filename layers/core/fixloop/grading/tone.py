"""Detectors of anger and abuse."""

import re
from collections.abc import Iterator

from fixloop.grading.conversation import Conversation
from fixloop.grading.findings import GraderSettings
from fixloop.grading.occurrences import Occurrence, quoted

_PROFANITY = re.compile(
    r"\b(?:(?:mother)?f(?:u|\*|@|#)(?:c|\*|@|#)(?:k|\*)(?:ing|in|er|ers|ed|s|\*+)?|f\*+(?:ing|k\w*)?|wtf|bullshit\w*"
    r"|sh[i*!]t(?:s|ty|show|head)?|ass+holes?|a\*\*holes?|bitch(?:es|ing)?|b\*tch|bastards?|dickheads?"
    r"|wankers?|cunts?|twats?"
    r"|piss(?:ed)? off|god ?dam(?:n|mit|ned)|dumbass(?:es)?|jackass(?:es)?)(?![\w*])",
    re.I,
)
_MILD = re.compile(r"\b(?:damn(?:ed)?|crap(?:py)?|screw you|go to hell|what the hell)\b", re.I)
_INSULT = re.compile(
    r"\byou(?:['\u2019]re| are|r)?(?: (?:all|just|being|so|really|such|a|an|complete|total|fucking)){0,3}"
    r" (?:idiots?|stupid|dumb|morons?|fools?|foolish|liars?|pathetic|imbeciles?|useless|incompetent|an? joke"
    r"|worthless)\b"
    r"|\bshut up\b|\bare you (?:stupid|dumb|deaf|an idiot|a moron)\b|\byou people are\b",
    re.I,
)
_ANGER = re.compile(
    r"\b(?:(?:this|that|it)(?:['\u2019]s| is)(?: (?:so|just|absolutely|completely|totally|really|beyond)){0,2}"
    r" (?:ridiculous|unacceptable|outrageous|absurd|infuriating|insane|a joke|bullshit|disgusting|disgraceful)"
    r"|(?:absolutely|completely|totally) (?:ridiculous|unacceptable|outrageous|useless)|what a (?:joke|waste of time)"
    r"|you(?:['\u2019]re| are) (?:wasting my time|not listening)|waste of (?:my )?time|worst (?:service"
    r"|company|experience)"
    r"|i(?:['\u2019]m| am)(?: (?:so|really|very|getting|extremely|absolutely|just|pretty)){0,2}"
    r" (?:angry|furious|livid|fed up|outraged|pissed|mad at|frustrated|sick (?:and tired )?of|losing my patience)"
    r"|(?:sick and tired|had enough) of (?:this|you|your)|i(?:['\u2019]ve| have) had enough|are you kidding me"
    r"|i hate (?:this|you|your))\b",
    re.I,
)


def caller_anger(talk: Conversation, _: GraderSettings) -> Iterator[Occurrence]:
    """The caller swears, insults, shouts or says that they are angry."""
    shouts = [r for r in talk.user if _shouting(r.text)]
    all_capitals = len(shouts) * 2 > len(talk.user) > 1
    loud = set() if all_capitals else {r.index for r in shouts}
    for row in talk.user:
        text = row.text[:20_000]
        found = _PROFANITY.search(text) or _INSULT.search(text) or _ANGER.search(text)
        if not found and row.index not in loud:
            continue
        yield Occurrence(
            "caller-anger",
            "Caller was angry",
            "warning",
            f'The caller said "{found[0]}".' if found else "The caller raised their voice.",
            row,
            (quoted(row.text, found.start() if found else 0),),
        )


def _shouting(text: str) -> bool:
    words = re.findall(r"[A-Za-z]{2,}", text[:2000])
    return len(words) >= 4 and "!" in text and all(map(str.isupper, words))


def agent_profanity(talk: Conversation, _: GraderSettings) -> Iterator[Occurrence]:
    """The agent swears at or insults the caller."""
    for row in talk.agent:
        text = row.text[:20_000]
        found = _PROFANITY.search(text) or _MILD.search(text) or _INSULT.search(text)
        if found:
            yield Occurrence(
                "agent-profanity",
                "Agent used abusive language",
                "critical",
                f'The agent said "{found[0]}".',
                row,
                (quoted(row.text, found.start()),),
            )
