"""A multilayer perceptron in plain NumPy: ReLU layers, softmax and cross-entropy, forward and backward by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def initial_parameters(sizes: Sequence[int], seed: int) -> list[Array]:
    """Random weights and zero biases in float32: [W0, b0, W1, b1, ...], each W with a row per input.

    Weights have the variance 2 / inputs, so that ReLU layers neither blow up nor fade (He et al. 2015).
    """
    random = np.random.default_rng(seed)
    parameters: list[Array] = []
    for inputs, outputs in pairwise(sizes):
        scale = np.float32(np.sqrt(2 / inputs))
        parameters.append(scale * random.standard_normal((inputs, outputs), dtype=np.float32))
        parameters.append(np.zeros(outputs, np.float32))
    return parameters


def forward(parameters: Sequence[Array], inputs: Array) -> list[Array]:
    """The values of all layers, a row per example: the inputs, the hidden layers, and last the logits."""
    weights, biases = parameters[::2], parameters[1::2]
    layers = [inputs]
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        z = layers[k] @ weight + bias
        is_last = k == len(weights) - 1
        layers.append(z if is_last else np.maximum(z, 0))
    return layers


def cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """The mean loss over the examples, and its gradient with respect to the logits."""
    # The largest logit is taken away first: exp then cannot overflow, and softmax stays the same.
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    correct = np.arange(len(labels)), labels
    loss = 0.0 - float(log_probability[correct].mean())  # no -0.0
    gradient = np.exp(log_probability)
    gradient[correct] -= 1
    gradient /= len(labels)
    return loss, gradient


def loss_and_gradients(
    parameters: Sequence[Array], inputs: Array, labels: Array, gradients: Sequence[Array]
) -> tuple[float, Array]:
    """Forward and backward through one batch.

    Args:
        parameters: As `initial_parameters` makes them; float64 works too.
        inputs: A row per example.
        labels: The right class of each example.
        gradients: Arrays like the parameters, which are overwritten. Made once with `grilly_optim.empty`, they
            lie where the device reads them.

    Returns:
        The mean loss, and the logits.
    """
    weights = parameters[::2]
    layers = forward(parameters, inputs)
    loss, slope = cross_entropy(layers[-1], labels)
    for k in reversed(range(len(weights))):
        # Here slope is the loss's gradient with respect to what layer k adds up, before its ReLU.
        np.matmul(layers[k].T, slope, out=gradients[2 * k])
        np.sum(slope, axis=0, out=gradients[2 * k + 1])
        if k > 0:
            slope = (slope @ weights[k].T) * (layers[k] > 0)
    return loss, layers[-1]
