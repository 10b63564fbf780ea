"""One item that fails takes nobody else's time limit with it."""

from __future__ import annotations

import asyncio
import time

from ptslink.server.wheel import Wheel
from support.wire import until


class Item:
    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.looked_at = 0

    def due(self, now: float) -> float | None:
        self.looked_at += 1
        if self.fails:
            raise RuntimeError("a bug")
        return now


async def test_an_item_that_fails_is_reported_and_the_others_are_looked_at() -> None:
    loop = asyncio.get_running_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    wheel = Wheel(loop, tick=0.01)
    items = [Item(), *(Item(fails=True) for _ in range(5)), Item()]
    begun = time.monotonic()
    for item in items:
        wheel.add(item, loop.time())
    wheel.start()
    await until(lambda: items[0].looked_at > 3 and items[-1].looked_at > 3)
    wheel.stop()
    assert [item.looked_at for item in items[1:-1]] == [1] * 5
    assert [str(error) for error in reported] == ["a bug"] * 5
    assert wheel.ticked > begun
