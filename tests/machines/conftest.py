"""Tests that boot machines: root on Debian only; scripts/test --quick leaves them out."""
