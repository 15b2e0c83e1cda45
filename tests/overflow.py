"""Reads behind the end of an array, on purpose: under AddressSanitizer this process must be stopped with a report."""

import numpy as np

from grilly_optim.optim import AdamW

n = 50_000
memory = np.ones(n // 2, np.float32)
longer = np.lib.stride_tricks.as_strided(memory, (n,), memory.strides)
AdamW([np.ones(n, np.float32)], device="cpu").step(gradients=[longer])
