"""What a run's time is held to. No I/O."""

from __future__ import annotations

from benchmarks.server.goals import Goal

BARE = "bare script, one machine, s"
STOCK = "stock modules, one machine, s"
STOCK_AGAIN = "stock modules again, s"
SITE = "site.yml, one machine, s"
AGAIN = "site.yml again, s"
FLEET = "site.yml, 8 machines, s"
TEST = "scripts/test --quick, s"

GOALS: tuple[Goal, ...] = (
    Goal("bare machine to proven link: a bare script", SITE, BARE, 1.5, "at most"),
    Goal("bare machine to proven link: stock modules", SITE, STOCK, 1.0, "at most"),
    Goal("second run: stock modules", AGAIN, STOCK_AGAIN, 1.0, "at most"),
    Goal("second run: nothing to change", AGAIN, None, 10.0, "at most", "s"),
    Goal("8 machines at once: one machine", FLEET, SITE, 3.0, "at most"),
    Goal("scripts/test --quick: every lint and unit test", TEST, None, 60.0, "at most", "s"),
)
