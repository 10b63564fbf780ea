"""``/metrics``: read from plain counters when asked, so that a message costs no metric."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ptslink.server.app import App
from ptslink.server.wheel import Wheel

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _AppCollector(Collector):
    def __init__(self, app: App, wheel: Wheel) -> None:
        self._app = app
        self._wheel = wheel

    def collect(self) -> Iterable[Metric]:
        app = self._app
        health = app.journal.health
        logs = app.health()["logs"] or {"ok": True, "dropped": 0}
        build = GaugeMetricFamily("ptslink_build_info", "Version.", labels=["version"])
        build.add_metric([app.version], 1)
        yield build
        for name, text, value in (
            ("ptslink_uptime_seconds", "Seconds since start.", time.time() - app.started),
            ("ptslink_connections", "Open connections, links or not.", app.admission.open),
            ("ptslink_links", "Open WebSocket links of controllers.", app.registry.links),
            ("ptslink_journal_ok", "1 while records can be kept, else 0.", int(health.ok)),
            ("ptslink_journal_waiting_bytes", "Messages that wait for the disk.", health.waiting),
            ("ptslink_logs_ok", "1 while log files can be written, else 0.", int(logs["ok"])),
            ("ptslink_loop_lag_seconds", "Latest delay of the event loop.", self._wheel.lag),
            (
                "ptslink_loop_lag_max_seconds",
                "Longest delay of the event loop since start.",
                self._wheel.lag_max,
            ),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        for name, text, count in (
            ("ptslink_journal_commits", "Commits.", health.commits),
            ("ptslink_journal_stored", "Messages made durable.", health.stored),
            ("ptslink_journal_duplicates", "Records that were there before.", health.duplicates),
            ("ptslink_journal_failed", "Messages answered with an error.", health.failed),
            (
                "ptslink_journal_refused",
                "Messages answered with an error since too much waited for the disk.",
                health.refused,
            ),
            (
                "ptslink_journal_replacements",
                "Times another file was found in the journal's place.",
                health.replacements,
            ),
            ("ptslink_journal_lost_evidence", "Evidence dropped.", health.lost_evidence),
            ("ptslink_log_lines_dropped", "Lines missing in the log files.", logs["dropped"]),
            (
                "ptslink_command_replies_unexpected",
                "Late, duplicate or unasked replies.",
                app.downlink.unexpected,
            ),
            ("ptslink_frames_rsv1", "Frames with a tolerated RSV1 bit.", app.rsv1.get("rsv1", 0)),
        ):
            yield CounterMetricFamily(name, text, value=count)
        ages = GaugeMetricFamily(
            "ptslink_silent_seconds", "Seconds since a part was seen to go on.", labels=["part"]
        )
        for part, age in app.vitals.ages().items():
            ages.add_metric([part], age)
        yield ages
        yield _labelled("ptslink_attempts", "Attempts to connect.", "verdict", app.attempts)
        yield _labelled("ptslink_link_endings", "How links ended.", "ending", app.endings)
        yield _labelled("ptslink_leniencies", "Leniencies needed.", "name", app.leniencies)
        yield _labelled(
            "ptslink_messages_refused", "Messages not taken.", "reason", app.intake.refused
        )
        yield _labelled("ptslink_packets", "Packets received.", "type", app.packets)


def _labelled(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value or "(none)"], count)
    return family


def render_metrics(app: App, wheel: Wheel) -> bytes:
    """The metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_AppCollector(app, wheel))
    return generate_latest(registry)
