"""What the server shows: read-only collectors, each bounded in time, yielding evidence.

A collector runs a command or reads a file (the thin edge) and hands the text to a pure reader.
Without root it says ``skipped`` and why.
"""
