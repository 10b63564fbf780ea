"""What of unknown senders is taken, by day, and what is remembered of the rest."""

from __future__ import annotations

from ptslink.journal.entry import Clock, Entry, Evidence, Health, Transport
from ptslink.journal.filing import file
from ptslink.server import intake as module
from ptslink.server.evidence import EvidenceLog
from ptslink.server.intake import Intake

DAY = 86_400_000
SALE = b'{"Protocol":"jsonPTS","Packets":[{"Id":1,"Type":"UploadShift","Data":{"Number":1}}]}'


class Recorded:
    """A journal that keeps evidence alone."""

    def __init__(self) -> None:
        self.health = Health()
        self.evidence: list[Evidence] = []

    def append(self, entry: Entry) -> None:  # noqa: ARG002
        raise AssertionError("evidence is no entry")

    def record(self, evidence: Evidence) -> None:
        self.evidence.append(evidence)

    def knows(self, controller: str) -> bool:  # noqa: ARG002
        return False


def made(new: int = 2, known: tuple[str, ...] = ()) -> tuple[Intake, Recorded]:
    journal = Recorded()
    return Intake(known.__contains__, new, EvidenceLog(journal, None, short_seconds=5)), journal


def sent(controller: str, payload: bytes = SALE, at: int = 0) -> Entry:
    return file(
        payload,
        controller=controller,
        clock=Clock(),
        received=at,
        transport=Transport.WEBSOCKET,
        link=1,
        settled=None,
    )


def test_an_id_counts_once_and_the_next_day_begins_at_zero() -> None:
    intake, _ = made(new=2)
    ids = ("0A", "0A", "0B", "0C", "0A", "0B")
    codes = [getattr(intake.refusal(sent(id_), "192.0.2.7"), "code", None) for id_ in ids]
    assert codes == [None, None, None, "too-many-new-controllers", None, None]
    assert intake.refusal(sent("0C"), "192.0.2.8") is None, "another address has its own"
    assert intake.refusal(sent("0C", at=DAY), "192.0.2.7") is None
    assert intake.health() == {"messages": 0, "addresses": []}


def test_two_addresses_of_one_64_share_what_they_may_bring() -> None:
    intake, _ = made(new=1)
    assert intake.refusal(sent("0A"), "2001:db8::1") is None
    assert intake.refusal(sent("0B"), "2001:db8::2") is not None
    assert intake.refusal(sent("0B"), "2001:db8:0:1::2") is None


def test_a_known_controller_is_never_counted() -> None:
    intake, _ = made(new=0, known=("0A",))
    assert intake.refusal(sent("0A", b"not json"), "192.0.2.7") is None
    assert intake.refused == {}


def test_the_address_that_sends_most_comes_first_in_health() -> None:
    intake, _ = made()
    for number, count in ((1, 3), (2, 7), (3, 1), (4, 2), (5, 2), (6, 2)):
        for _ in range(count):
            intake.refusal(sent("", b"{}"), f"192.0.2.{number}")
    told = intake.health()
    assert told["messages"] == 17
    assert [one["address"][-1] for one in told["addresses"]] == ["2", "1", "4", "5", "6"]
    assert intake.refused == {"no-controller-id": 17}


def test_evidence_of_all_addresses_and_their_number_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 2_000)
    monkeypatch.setattr(module, "MAX_ADDRESSES", 20)
    intake, journal = made()
    for number in range(30):
        intake.refusal(sent("", b"x" * 400), f"192.0.2.{number}")
    assert 0 < sum(len(one.detail) for one in journal.evidence) <= 2_000
    assert intake.health()["messages"] == 30
    # What is not kept any longer is kept again the next day.
    before = len(journal.evidence)
    intake.refusal(sent("", b"x", at=DAY), "192.0.2.1")
    assert len(journal.evidence) == before + 1


def test_new_ids_of_all_addresses_together_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_NEW", 3)
    intake, _ = made()
    refused = [intake.refusal(sent(f"0{n}"), f"192.0.2.{n}") is not None for n in range(5)]
    assert refused == [False, False, False, True, True]
