"""Faults that are generated, not chosen: a healthy machine is changed one step at a time.

    scripts/bench mutate                   a sample of each kind; docs/faults.md gets its section
    scripts/bench mutate --kind nginx-removed --count 0       every mutation of one kind
    scripts/bench mutate --held-out        the quarter of the kinds that is left out otherwise

A *kind* (:mod:`.kinds`) reads the healthy :class:`.system.System` and yields :class:`.Mutation`.
Whether a mutation breaks the link is decided by a faithful controller (:mod:`.oracle`), never by
its author; then the doctor is asked, and :mod:`.figures` counts.
"""
