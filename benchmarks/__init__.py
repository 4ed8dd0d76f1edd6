"""benchmarks owns repeatable measurements: each prints its figure beside a limit that was measured in the same run.

Run them with `./run bench` (or `python -m benchmarks` from the repository). chartferry runs as a user runs it: the CLI, in a
separate process; the mock EHR runs in another one. None of this is shipped.
"""
