"""Two helpers of training loops."""

from __future__ import annotations

from grilly_optim.optim._options import Range, Whole


def lambda_lr_schedule(epoch: float) -> float:
    """The factor of a well-known schedule for residual networks on CIFAR-10, over 200 epochs; for `LambdaLR`.

    ==============  ======
    epochs          factor
    ==============  ======
    0 to 80         1
    81 to 120       0.1
    121 to 160      0.01
    161 to 180      0.001
    181 and later   0.0005
    ==============  ======

    Args:
        epoch: 0 or more.

    Raises:
        TypeError: `epoch` is not a number.
        ValueError: It is negative or not finite.

    Source: `hypnettorch.utils.torch_utils.lambda_lr_schedule`, after the ResNet example of Keras.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import AdamW
        >>> from grilly_optim.schedules import LambdaLR, lambda_lr_schedule
        >>> optimizer = AdamW([np.zeros(3)], lr=1.0, device="numpy")
        >>> schedule = LambdaLR(optimizer, lambda_lr_schedule)
        >>> for _ in range(100):
        ...     schedule.step()
        >>> optimizer.param_groups[0]["lr"]
        0.1
    """
    number = Range(0).take("epoch", epoch)
    for after, factor in ((180, 0.0005), (160, 0.001), (120, 0.01), (80, 0.1)):
        if number > after:
            return factor
    return 1.0


def calc_train_iter(num_train_samples: int, batch_size: int, num_iter: int = -1, epochs: int = -1) -> tuple[int, int]:
    """How many training iterations there are, from a number of epochs or of iterations.

    Args:
        num_train_samples: Samples in the training set, 1 or more.
        batch_size: Samples in a batch, 1 or more; the last batch of an epoch may have less.
        num_iter: Iterations, 0 or more; counts only where `epochs` is -1.
        epochs: Epochs, 1 or more; -1 for none.

    Returns:
        The iterations, and the iterations in an epoch: -1 where `epochs` is -1.

    Raises:
        TypeError: An argument is not a whole number.
        ValueError: An argument out of range, or neither `num_iter` nor `epochs` given.

    Source: `hypnettorch.utils.sim_utils.calc_train_iter`.

    Example:
        >>> from grilly_optim.schedules import calc_train_iter
        >>> calc_train_iter(1000, 32, epochs=10)
        (320, 32)
        >>> calc_train_iter(1000, 32, num_iter=500)
        (500, -1)
    """
    samples = Whole(1).take("num_train_samples", num_train_samples)
    batch = Whole(1).take("batch_size", batch_size)
    if epochs == -1:
        if num_iter == -1:
            raise ValueError("num_iter or epochs must be given, and both are -1")
        return Whole(0).take("num_iter", num_iter), -1
    per_epoch = -(-samples // batch)
    return Whole(1).take("epochs", epochs) * per_epoch, per_epoch
