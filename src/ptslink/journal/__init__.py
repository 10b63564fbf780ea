"""The durable record: a message is on disk before it is confirmed.

The server knows `ptslink.journal.entry` and `ptslink.journal.writer`; what SQL is behind them is
`ptslink.journal.store`'s business alone.
"""
