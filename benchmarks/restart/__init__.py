"""A restart under 500 connected controllers, on a provisioned machine (scripts/bench restart)."""
