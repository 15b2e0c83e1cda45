"""The twin of shaders/lib/scalar_math.glsl: exp, tanh and whole powers for the code between two passes."""

from __future__ import annotations

import math

import numpy as np


def power(x: np.float64, n: np.float64) -> np.float64:
    """The power x^n, n whole and 0 or more."""
    result = np.float64(1)
    while n >= 1:
        rest = np.floor(n / 2)
        if n - 2 * rest == 1:
            result = result * x
        x = x * x
        n = rest
    return result


def exponential(x: np.float64) -> np.float64:
    """The exponential of x."""
    if math.isnan(x):
        return x
    x = np.clip(x, np.float64(-1100), np.float64(1100))
    k = np.floor(x * 14427 / 10000 + 0.5)
    r = x - k * (355 / 512)
    r = r + k * (14581891 / 65536 / 1048576)
    r = r - k * (15187158 / 67108864 / 67108864 / 2048)
    total = np.float64(1)
    for n in range(14, 0, -1):
        total = 1 + total * r / n
    return total * (power(np.float64(2), k) if k >= 0 else power(np.float64(0.5), -k))


def hyperbolic_tangent(x: np.float64) -> np.float64:
    """The tangens hyperbolicus of x."""
    e = exponential(-2 * abs(x))
    t = (1 - e) / (1 + e)
    return -t if x < 0 else t
