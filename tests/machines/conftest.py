"""Tests that boot machines: root on Debian only. scripts/test runs them; --quick leaves them out."""
