r"""The fault matrix: causes injected for real on a provisioned machine, and named by the doctor.

    scripts/lab up --lab faults
    PTSLINK_LAB=faults ansible-playbook -i inventory/lab site.yml \
        -e @tests/machines/faults/machine.yml
    python -m machines.faults --lab faults [ID ...]      (with tests/ on PYTHONPATH)

Tables: one file a layer, each a tuple ``FAULTS`` of :class:`Fault`. The runner shares one machine
among all cases: inject, examine from the vantage points needed, compare the first finding, undo,
and see that the link is healthy again. Results are JSON lines; ``docs/faults.md`` is made of them.
"""
