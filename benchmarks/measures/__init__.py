"""The project's targets, measured: ``python -m grilly_optim.benchmarks.measures [--json FILE]``."""
