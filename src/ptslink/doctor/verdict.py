"""From a case to a verdict: every cause is asked once, and the answers are put in order. Pure.

The order of the findings, root cause first:

1. A cause that names another in its ``aftermath`` leads it, wherever both match, and takes the
   better rank of the two: a full disk that stopped the service is the answer to "connection
   refused", however deep the disk lies.
2. Guesses (confidence below :data:`GUESS`) go behind what is known.
3. The outermost broken hop first: while TCP fails, nothing behind it has a say.
4. Then confidence.

Where two causes both match and the better founded one rules the other out, the other is dropped.

A fix may be applied unasked only where the server's own evidence leads to it: where another place
has told a value that the server does not know, somebody is asked first.

Evidence is what other machines sent. Whatever it holds, a verdict comes out: a step or a cause that
cannot work with it becomes a check that says so.

The list of causes is not closed. When a step of the link fails and no finding explains it, a
generic finding of the right layer stands in, with advice for that layer and what was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ptslink.doctor.admission import REFUSED, admitted, reduced
from ptslink.doctor.cause import Auto, Cause, Fix, Layer, Match
from ptslink.doctor.evidence import Case, Evidence, Json, Status
from ptslink.doctor.finding import Finding
from ptslink.doctor.link_seen import unexamined
from ptslink.doctor.pattern import patterns
from ptslink.doctor.stranger import recognized
from ptslink.doctor.unasked import why_asked
from ptslink.doctor.unlisted import CONFIDENCE, unlisted
from ptslink.escape import visible

#: Below this a finding is a guess: shown, but never ahead of what is known.
GUESS = 0.5

_DEPTH = {layer: depth for depth, layer in enumerate(Layer)}

#: Which layer a failing probe speaks of, by its room (the part before the dot).
ROOMS: Mapping[str, Layer] = {
    "dns": Layer.DNS,
    "route": Layer.L3,
    "tcp": Layer.TCP,
    "tls": Layer.TLS,
    "nginx": Layer.PROXY,
    "http": Layer.HTTP_UPGRADE,
    "ws": Layer.WS_PROTOCOL,
    "service": Layer.APPLICATION,
    "link": Layer.PROXY,
    "host": Layer.HOST,
}


def layer_of(piece: Evidence) -> Layer:
    """Which layer a failing probe speaks of: what fails and belongs nowhere else, of the host.

    A captured connection speaks of the step at which it failed, a try of the server's own of the
    hop that it went to; a pattern names its layer.
    """
    if piece.probe.startswith("pattern."):
        return Layer(piece.facts.get("layer", Layer.HOST))
    if piece.facts.get("hop") == "service":
        return Layer.APPLICATION
    if piece.probe != "capture.stream":
        return ROOMS.get(piece.probe.partition(".")[0], Layer.HOST)
    if not piece.facts["established"] and piece.facts["syn"]:
        return Layer.TCP
    http = piece.facts["http"] or {}
    if any(alert["number"] for alert in (piece.facts["tls"] or {}).get("alerts", [])):
        return Layer.TLS
    return Layer.WS_PROTOCOL if http.get("status") == 101 else Layer.HTTP_UPGRADE


#: Layers whose findings explain a failing step of the key's layer; any layer where not named
#: here. What lies deeper cannot break what lies further out, but for a missing listener.
_EXPLAINED_BY: Mapping[Layer, frozenset[Layer]] = {
    Layer.DNS: frozenset({Layer.DNS, Layer.L3, Layer.CONTROLLER}),
    Layer.L3: frozenset({Layer.DNS, Layer.L3, Layer.TCP, Layer.CONTROLLER}),
    Layer.TCP: frozenset(
        {Layer.DNS, Layer.L3, Layer.TCP, Layer.PROXY, Layer.HOST, Layer.CONTROLLER}
    ),
}

#: True of a host and worth mending, but never why a step of the link fails (only why many links
#: were lost at once).
_BYSTANDERS = frozenset({"host-clock-wrong", "host-auto-upgrade", "app-messages-refused"})

#: A try of this machine at itself has a faultless request and no way to go: findings of these
#: layers and names, which speak of a controller or of the way to it, do not explain its failure.
_NOT_HERE = frozenset({Layer.DNS, Layer.L3, Layer.WS_PROTOCOL, Layer.CONTROLLER})
_OF_CONTROLLERS = frozenset(
    {
        "hs-uri-no-slash", "hs-bad-key", "hs-bad-version", "hs-device-no-connection",
        "hs-device-no-upgrade", "hs-http10-device", "hs-method-post", "hs-malformed-request",
        "hs-half-close-499", "hs-id-unknown", "px-forward-proxy", "px-captive-portal",
        "px-proxy-protocol-sent", "tcp-wrong-port", "tcp-half-open-ghost", "nat-idle-silent",
        "fw-upstream-drop", "fw-site-egress-block", "fw-fail2ban-ban", "tls-device-clock",
    }
)  # fmt: skip


#: The check that is there only where nothing of a link was seen; it says why.
EXAMINED = "doctor:examined"
#: The finding of evidence that was not let in, and how many reasons it tells.
EVIDENCE_REFUSED, MOST_REASONS = "evidence-refused", 20
_Got = TypeVar("_Got")


@dataclass(frozen=True, slots=True)
class Check:
    """One probe that ran, or why it did not."""

    #: ``vantage:probe``, e.g. ``site:tcp.connect``.
    id: str
    status: Status
    seen: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the doctor has to say."""

    target: str
    vantages: tuple[str, ...]
    findings: tuple[Finding, ...]
    checks: tuple[Check, ...]
    seconds: float = 0.0

    @property
    def healthy(self) -> bool:
        """No finding. An empty examination is not health: see :attr:`examined`."""
        return not self.findings

    @property
    def examined(self) -> bool:
        """Whether something of a link was seen: a host without one is not a healthy link."""
        return not self.unexamined

    @property
    def unexamined(self) -> str:
        """Why nothing can be said of a link; empty where something can."""
        return next((check.seen for check in self.checks if check.id == EXAMINED), "")

    def to_json(self) -> dict[str, Json]:
        """The report as data: keys and types are a promise to programs."""
        return {
            "healthy": self.healthy and self.examined,
            "target": visible(self.target),
            "vantage": list(self.vantages),
            "duration_s": round(self.seconds, 1),
            "findings": [_finding_json(finding) for finding in self.findings],
            "checks": [
                {
                    "id": visible(check.id),
                    "status": check.status.value,
                    "seen": visible(check.seen),
                }
                for check in self.checks
            ],
        }


def judge(case: Case, causes: Iterable[Cause], seconds: float = 0.0) -> Verdict:
    """Ask every cause and put what matches in order.

    *seconds* is how long gathering the evidence took; it is only passed on.
    """
    broken: list[Check] = []
    nothing = replace(case, evidence=())
    case = _guarded(broken, "evidence", nothing, lambda: admitted(case))
    case = _guarded(broken, "strangers", case, lambda: recognized(case))
    found = _guarded(broken, "patterns", list[Evidence](), lambda: patterns(case))
    case = replace(case, evidence=(*case.evidence, *found))
    matched = _asked(case, causes, broken)
    findings = _guarded(broken, "order", list[Finding](), lambda: _ordered(_not_excluded(matched)))
    if why := _guarded(broken, "examined", "", lambda: unexamined(case)):
        broken.append(Check(EXAMINED, Status.UNKNOWN, why))
    failed = _unexplained(case, findings, broken)
    if failed is not None:
        # What failed in the link is what the person came for: it goes before findings that do
        # not explain it (a clock, a setting that would bite later), behind what lies further out.
        layer, piece = failed
        generic = _generic(layer, piece)
        named = _guarded(broken, "unlisted", generic, lambda: unlisted(layer, piece, case))
        outer = [one for one in findings if _DEPTH[one.layer] < _DEPTH[layer]
                 and one.match.confidence >= GUESS and one.id not in _BYSTANDERS]  # fmt: skip
        place = findings.index(outer[-1]) + 1 if outer else 0
        findings = [*findings[:place], named, *findings[place:]]
    return Verdict(
        target=case.target,
        # Who could not look at all has seen nothing.
        vantages=tuple(
            dict.fromkeys(p.vantage for p in case.evidence if p.status is not Status.SKIPPED)
        ),
        findings=(*findings, *_refused(case)),
        checks=tuple(
            Check(f"{piece.vantage}:{piece.probe}", piece.status, piece.seen)
            for piece in case.evidence
        )
        + tuple(broken),
        seconds=seconds,
    )


def _guarded(broken: list[Check], step: str, instead: _Got, work: Callable[[], _Got]) -> _Got:
    """What *work* gives; *instead*, and a check among *broken*, where it cannot: one mistake of
    ours, or evidence of another version, must not cost the whole verdict."""
    try:
        return work()
    except Exception as error:
        why = f"could not be judged: {type(error).__name__}: {error}"
        broken.append(Check(f"doctor:{step}", Status.UNKNOWN, why))
        return instead


def _asked(case: Case, causes: Iterable[Cause], broken: list[Check]) -> list[tuple[Cause, Match]]:
    """What matches; what cannot be judged goes among *broken*."""
    matched: list[tuple[Cause, Match]] = []
    without: list[Case | None] = []
    for cause in causes:
        match = _guarded(broken, cause.id, None, lambda cause=cause: cause.judge(case))  # type: ignore[misc]
        if match is None:
            continue
        fix = match.fix or cause.fix
        why = ""
        if fix.auto is Auto.YES:
            lines = match.evidence
            why = _guarded(
                broken,
                cause.id,
                "",
                lambda fix=fix, lines=lines: why_asked(fix, lines, case),  # type: ignore[misc]
            )
        if not why and fix.auto is Auto.YES and not _same(fix, cause.fix):
            nothing: Case | None = replace(case, evidence=())
            without = without or [_guarded(broken, "own", nothing, lambda: reduced(case))]
            if without[0] is not None and not _led_to(fix, cause, without[0]):
                why = "What to change was not told by the server alone."
        if why:
            match = replace(match, fix=replace(fix, auto=Auto.ASK), evidence=(*match.evidence, why))
        matched.append((cause, match))
    return matched


def _same(one: Fix, other: Fix) -> bool:
    """Whether both do the same."""
    return (one.commands, one.ansible) == (other.commands, other.ansible)


def _led_to(fix: Fix, cause: Cause, case: Case) -> bool:
    """Whether *case* leads to the same fix."""
    try:
        match = cause.judge(case)
    except Exception:
        return False
    return match is not None and _same(match.fix or cause.fix, fix)


def _generic(layer: Layer, failed: Evidence) -> Finding:
    """The finding where nothing more can be said than what failed."""
    return Finding(
        f"unlisted-{layer.value}", layer, f"{failed.probe} fails from {failed.vantage}",
        Match(CONFIDENCE, (failed.seen,)),
        Fix("Look at this step of the link from a second place.", "It goes well."),
    )  # fmt: skip


def _refused(case: Case) -> list[Finding]:
    """The finding of evidence that was not let in. It explains nothing, so it comes last."""
    reasons = [piece.seen for piece in case.evidence if piece.probe == REFUSED]
    if not reasons:
        return []
    more = len(reasons) - MOST_REASONS
    return [
        Finding(
            EVIDENCE_REFUSED, Layer.HOST, "Evidence was refused: it is not what the doctor writes",
            Match(1.0, (*reasons[:MOST_REASONS], *([f"and {more} more"] if more > 0 else []))),
            Fix(
                "Nothing is inferred from what was refused. Look who can write on the machine it "
                "came from, and run the doctor there again, of the same release as here.",
                "No evidence is refused.",
            ),
        )
    ]  # fmt: skip


def _not_excluded(matched: list[tuple[Cause, Match]]) -> list[tuple[Cause, Match]]:
    """Drop what a better founded match rules out. Equals that exclude each other both stay."""

    def excluded(cause: Cause, match: Match) -> bool:
        return any(
            cause.id in other.ruled_out
            and (
                other.confidence > match.confidence
                or (other.confidence == match.confidence and by.id not in match.ruled_out)
            )
            for by, other in matched
            if by.id != cause.id
        )

    return [(cause, match) for cause, match in matched if not excluded(cause, match)]


_Rank = tuple[bool, int, float]


def _ordered(matched: Sequence[tuple[Cause, Match]]) -> list[Finding]:
    """The findings, root cause first; see the module's text for the rules."""
    rank: dict[str, _Rank] = {
        cause.id: (match.confidence < GUESS, _DEPTH[cause.layer], -match.confidence)
        for cause, match in matched
    }
    parent = _parents(matched)
    chain: dict[str, list[str]] = {}
    for id_ in rank:
        line = [id_]
        while (up := parent.get(line[0])) is not None and up not in line:
            line.insert(0, up)
        chain[id_] = line
    best: dict[str, _Rank] = {}
    for id_, line in chain.items():
        root = line[0]
        best[root] = min(best.get(root, rank[id_]), rank[id_])
    findings = [
        Finding(cause.id, cause.layer, cause.title, match, match.fix or cause.fix,
                parent.get(cause.id))
        for cause, match in matched
    ]  # fmt: skip

    def order(finding: Finding) -> tuple[_Rank, str, list[tuple[_Rank, str]]]:
        line = chain[finding.id]
        return best[line[0]], line[0], [(rank[id_], id_) for id_ in line[1:]]

    return sorted(findings, key=order)


def _parents(matched: Sequence[tuple[Cause, Match]]) -> dict[str, str]:
    """For each finding that is another's aftermath: the best founded of those others."""
    parent: dict[str, str] = {}
    for cause, _ in matched:
        above = [
            (match.confidence, other.id)
            for other, match in matched
            if cause.id in other.aftermath and other.id != cause.id and match.confidence >= GUESS
        ]
        if above:
            parent[cause.id] = max(above)[1]
    return parent


def _unexplained(
    case: Case, findings: Sequence[Finding], broken: list[Check]
) -> tuple[Layer, Evidence] | None:
    """The outermost failing check that no finding worth the name explains.

    None is left out: a verdict is never "healthy" while a try of ours, from any place and at any
    hop, failed.
    """

    def step(piece: Evidence) -> Layer | None:
        if piece.status is not Status.FAILED or not counts(piece) or _replaced(piece, case):
            return None
        return None if _connected_later(piece, case) else layer_of(piece)

    def explained(layer: Layer, piece: Evidence) -> bool:
        layers = _EXPLAINED_BY.get(layer, frozenset(Layer))
        if piece.probe == "link.local":
            layers -= _NOT_HERE
        return any(
            finding.layer in layers
            and finding.match.confidence >= GUESS
            and (finding.id not in _BYSTANDERS or piece.probe == "pattern.drop")
            and (finding.id not in _OF_CONTROLLERS or piece.probe != "link.local")
            for finding in findings
        )

    steps = [
        (layer, piece)
        for piece in case.evidence
        if (layer := _guarded(broken, piece.probe, None, lambda piece=piece: step(piece)))  # type: ignore[misc]
    ]
    left = [(layer, piece) for layer, piece in steps if not explained(layer, piece)]
    return min(left, key=lambda step: _DEPTH[step[0]], default=None)


def counts(piece: Evidence) -> bool:
    """Whether a failing probe speaks of the link itself.

    A probe that tries what the target does not ask for (another port, another path, an old TLS
    version) says so with the fact ``variation``: its failure is information, not a fault.
    """
    return not piece.facts.get("variation", False)


def _replaced(piece: Evidence, case: Case) -> bool:
    """Whether it is a unit that somebody stopped, and the link works all the same by every try of
    this machine's: another server has its place."""
    stopped = (piece.facts.get("active"), piece.facts.get("result")) == ("inactive", "success")
    tries = case.all("link.local")
    return (
        piece.probe == "host.unit"
        and stopped
        and {p.facts.get("hop") for p in tries} == {"nginx", "service"}
        and all(p.status is Status.OK for p in tries)
    )


def _connected_later(piece: Evidence, case: Case) -> bool:
    """Whether a capture shows that who could not connect could, later, to the same port."""
    if piece.probe != "capture.stream" or piece.facts["established"]:
        return False
    ends = ("client", "server", "server_port")
    return any(
        other.facts["established"]
        and other.facts["began"] > piece.facts["began"]
        and all(other.facts[end] == piece.facts[end] for end in ends)
        for other in case.all("capture.stream")
    )


def _finding_json(finding: Finding) -> dict[str, Json]:
    fix = finding.fix
    words = [fix.summary]
    if fix.controller:
        words.append(f"In the controller: {fix.controller}")
    words.append(f"Once right: {fix.expect}")
    return {
        "id": finding.id,
        "layer": finding.layer.value,
        "title": visible(finding.title),
        "confidence": round(finding.match.confidence, 2),
        "evidence": [visible(line) for line in finding.match.evidence],
        "ruled_out": list(finding.match.ruled_out),
        "fix": {
            "summary": visible(" ".join(words)),
            "command": fix.command and visible(fix.command, keep="\n"),
            "ansible": dict(fix.ansible),
            "auto": fix.auto.value,
        },
    }
