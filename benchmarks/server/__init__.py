"""The server's speed against what people would use instead: see benchmarks/README.md."""
