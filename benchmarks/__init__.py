"""benchmarks owns repeatable measurements: each prints its figure with the limit that was measured beside it in the same run.

Run as `./run bench` (or `python -m benchmarks` from the repository). chartferry runs as a user runs it: the CLI, in a process
of its own; the mock EHR runs in another. Nothing here is shipped.
"""
