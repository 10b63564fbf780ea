"""The doctor: target -> probes -> evidence -> causes -> report.

A probe never concludes; a cause never probes. ``probe/`` is pure standard library, so that it can
be carried to any host that has Python 3.11.
"""
