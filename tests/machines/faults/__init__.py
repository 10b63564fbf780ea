"""The fault matrix: causes injected for real on a provisioned machine, and named by the doctor.

    scripts/bench faults                 everything; docs/faults.md is made of it
    scripts/bench faults --layer proxy   one table
    scripts/bench faults --lab NAME ID   one row, in a lab that is up

Tables: one file a layer, each a tuple ``FAULTS`` of :class:`Fault`. The runner shares one machine
among all cases: inject, examine from the vantage points needed, compare the first finding, undo,
and see that the link is healthy again. Results are JSON lines.
"""
