"""The three things that can go wrong with a device. The compiled core raises these same classes."""


class DeviceUnavailable(RuntimeError):
    """The device asked for is unknown, not there or not usable. The message says why and what to do."""


class OutOfDeviceMemory(RuntimeError):
    """An allocation was refused. The message names the bytes asked for, the bytes in use and the limit that was hit."""


class DeviceLost(RuntimeError):
    """The driver gave up on the device. Build a new optimizer and load the last ``state_dict()``."""
