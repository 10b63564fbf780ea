"""What the causes of the upper layers share: picking the attempt that shows the fault."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any

from ptslink.doctor.attempts import SAME_SECONDS, Attempt, Trouble, attempts, troubles
from ptslink.doctor.cause import Fix, Match
from ptslink.doctor.evidence import Case, Json
from ptslink.doctor.pattern import (
    LOOP,
    Link,
    ailing,
    by_controller,
    current,
    ending,
    last_run,
    link_location,
)

#: What a controller that retries each second trips over once anything has failed.
RETRY_AFTERMATH = (
    "px-limit-req",
    "px-limit-conn",
    "px-error-held-open",
    "app-rate-lockout",
    "fw-fail2ban-ban",
    "fw-ufw-limit-lockout",
    "dev-reconnect-storm",
    "dev-site-shared-nat",
)


def failing(case: Case, fits: Callable[[Attempt], bool]) -> Attempt | None:
    """The root failure of somebody who does not get through, if it fits."""
    return next((t.root for t in troubles(case) if fits(t.root)), None)


def every_failing(case: Case, fits: Callable[[Attempt], bool]) -> list[Trouble]:
    """All who do not get through for a fitting reason."""
    return [trouble for trouble in troubles(case) if fits(trouble.root)]


def limited(case: Case, fits: Callable[[Attempt], bool]) -> tuple[Attempt, bool] | None:
    """A refusal by a limit that fits, and whether nothing else stands behind it."""
    for trouble in troubles(case):
        hit = next((attempt for attempt in trouble.limits if fits(attempt)), None)
        if hit is not None:
            return hit, trouble.root.limited
    return None


def by_nginx(attempt: Attempt) -> bool:
    """Whether nginx made the answer itself."""
    return attempt.by == "nginx"


def by_service(attempt: Attempt) -> bool:
    """Whether the answer came from behind nginx, or from the service directly."""
    return attempt.by == "backend"


def said(attempt: Attempt, *words: str) -> bool:
    """Whether the answer's body or the service's reason contains one of *words*.

    ptslink names its refusals; its explanations mention every header, so they are not searched.
    """
    text = f"{'' if attempt.code else attempt.body}\n{attempt.reason}".lower()
    return any(word.lower() in text for word in words)


def service_config(case: Case, table: str) -> Mapping[str, Json]:
    """A table of the service's configuration, or {}."""
    found: Mapping[str, Json] = (case.fact("service.config", "config") or {}).get(table, {})
    return found


def logged(case: Case, *kinds: str) -> list[Mapping[str, Json]]:
    """Lines of those kinds in the log of whatever serves the link, oldest first."""
    return [
        event
        for piece in case.all("service.log")
        for event in piece.facts["events"]
        if event["kind"] in kinds
    ]


def unrecorded(case: Case, fits: Callable[[Link], bool] = lambda _: True) -> list[Link]:
    """As :func:`ending`, of links that nginx alone saw: another server than ours was behind it."""
    return ending(case, lambda link: not link.code and fits(link))


def ends_told(case: Case, *kinds: str) -> tuple[list[Link], Mapping[str, Json]] | None:
    """Ends of links that nginx alone saw and the log tells of in the same moment, with the line.

    A log may fall silent before the links do (the journal drops lines of who writes many): what
    it told of most links of a run, it would have told of the rest, which ended alike.
    """
    lines = [event for event in logged(case, *kinds) if event["at"] is not None]
    times = sorted(float(event["at"]) for event in lines)

    def told(link: Link) -> bool:
        next_line = bisect_left(times, link.at - SAME_SECONDS)
        return next_line < len(times) and times[next_line] <= link.at + SAME_SECONDS

    hits = unrecorded(case, told)
    if not hits and times:
        hits = _told_before(case, times[-1] + SAME_SECONDS, told)
    return (hits, lines[-1]) if hits else None


def _told_before(case: Case, silent: float, told: Callable[[Link], bool]) -> list[Link]:
    """The links told of, of an unrecorded run that goes on though the log is *silent* since."""
    mine = by_controller(current(case))
    for controller in ailing(case):
        run = [link for link in last_run(mine[controller]) if not link.code]
        before = [link for link in run if link.at <= silent]
        hits = [link for link in before if told(link)]
        if len(hits) >= LOOP and 2 * len(hits) > len(before):
            return hits
    return []


def service_answers(case: Case) -> bool:
    """Whether the service, asked directly on this machine, makes the link."""
    return any(
        piece.facts.get("hop") == "service" and piece.facts.get("status") == 101
        for piece in case.all("link.local")
    )


def nginx_answers(case: Case) -> bool:
    """Whether the link through nginx works: from this machine, at every address and port that it
    was tried at; where it was not, for the last that came."""
    own = [p.facts.get("status") for p in case.all("link.local") if p.facts.get("hop") == "nginx"]
    if own:
        return all(status == 101 for status in own)
    came = [attempt for attempt in attempts(case) if attempt.source == "nginx"]
    return bool(came) and came[-1].status == 101


def location(case: Case) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """The server block and location of the link, while the link through nginx does not work.

    A setting that looks wrong in a proxy that works is not the fault.
    """
    return None if nginx_answers(case) else link_location(case)


def where(site: Mapping[str, Any], place: Mapping[str, Any]) -> str:
    """Which line of which file, for a person."""
    return f"{site['file'] or 'nginx configuration'} line {place['line']}"


def match(
    attempt: Attempt | None,
    confidence: float,
    *lines: str,
    ruled_out: tuple[str, ...] = (),
    fix: Fix | None = None,
) -> Match:
    """A match that shows the attempt first, then why it means this, and what nginx's log says."""
    shown = (attempt.shown(),) if attempt is not None else ()
    said = " ".join((*shown, *lines))
    events = attempt.events[:1] if attempt is not None else ()
    told = [f"nginx: {e['text']}" for e in events if str(e["text"])[:120] not in said]
    return Match(confidence, (*shown, *lines, *told), ruled_out, fix)
