"""Benchmarks: every kernel on every device, beside rivals at their best; results are checked before they are timed.

A kernel is one module here, listed in `KERNELS`. It has ``SUBJECT`` (a `Subject`: the rule, how its optimizer is built,
and the same steps in float64) and ``RIVALS`` (library -> a function that makes teams of contestants for a `Problem`).
Imports are relative: the folder is a package of its own in the source tree, and ``grilly_optim.benchmarks`` when it is
installed.
"""

# Kernel -> its module in this package.
KERNELS = {"adamw": "adamw"}
