"""Whatever bytes a text frame has: what is confirmed of it is in the journal, byte for byte."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ptslink.journal.entry import Clock, Transport
from ptslink.journal.filing import derive, file
from ptslink.journal.store import Store
from ptslink.jsonpts.confirmation import answers
from ptslink.server.framing import Framing
from support.wire import frame

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

_texts = st.binary(max_size=12) | st.sampled_from(
    ["Дизель".encode(page) for page in ("utf-8", "cp1251", "cp866", "koi8-r")]
    + [b"\\", b"\\udcd0", b"\xb2\\", b'"']
)
_packets = st.builds(
    lambda type_, id_, text, comma: (
        b'{"Id":%b,"Type":"%b","Data":{"UTCOffset":60,"Name":"%b"%b}}' % (id_, type_, text, comma)
    ),
    st.sampled_from([b"UploadStatus", b"UploadPumpTransaction", b"UploadX", b"RequestTags", b""]),
    st.sampled_from([b"7", b'"7"', b"null", b'"\xe4"']),
    _texts,
    st.sampled_from([b"", b"", b","]),
)
_frames = st.lists(_packets, max_size=3).map(
    lambda packets: b'{"Packets":[%b]}' % b",".join(packets)
) | st.binary(max_size=200)


def received(payload: bytes) -> list[bytes]:
    """The messages of a text frame that comes in two segments."""
    found: list[bytes] = []
    framing = Framing(1 << 20, validate_utf8=False)
    sent = frame(payload)
    for part in (sent[:9], sent[9:]):
        framing.receive(part, lambda message, _: found.append(message))
    return found


@settings(max_examples=60, deadline=None)
@given(_frames)
@example(b'{"Packets":[{"Id":1,"Type":"UploadStatus","Data":{"Name":"\xc4\xe8"}}]}')
@example(b'{"Packets":[{"Id":1,"Type":"UploadStatus","Data":{"A":1,}}]}')
@example(b'{"Packets":[{"Id":1,"Type":"UploadX","Data":{"Name":"\xc4\xe8"}}]}')
def test_confirmed_bytes_are_in_the_journal_as_they_came(payload: bytes) -> None:
    assert received(payload) == [payload]
    entry = file(
        payload,
        controller="AB",
        clock=Clock(),
        received=1_790_000_000_000,
        transport=Transport.WEBSOCKET,
        link=1,
        settled=None,
    )
    derive(entry)
    with tempfile.TemporaryDirectory(prefix="ptslink-test-", dir=MEMORY) as directory:
        store = Store(Path(directory, "j.db"))
        store.write([entry], [])
        kept = [raw for (raw,) in store._connection.execute("SELECT raw FROM messages")]
        latest = [data for (data,) in store._connection.execute("SELECT data FROM status_latest")]
        store.close()
    for answer in answers(entry.packets, stored=True):
        for packet in json.loads(answer)["Packets"]:
            # Of a status, the latest is kept in place of the one before (PTS-2 protocol, quirk 12).
            is_status = packet["Type"] == "UploadStatus"
            assert payload in kept or (is_status and any(data in payload for data in latest))
