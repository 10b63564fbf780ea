"""The crash test: SIGKILL at random moments under uploading controllers (scripts/bench crash)."""
