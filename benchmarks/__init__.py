"""Benchmarks: every kernel on every device, beside rivals at their best; results are checked before they are timed.

A kernel is an entry of `kernels.KERNELS`: how its optimizer is built, its steps as one writes them in NumPy, and who
else has it. Imports are relative: the folder is a package of its own in the source tree, and
``grilly_optim.benchmarks`` when it is installed.
"""
