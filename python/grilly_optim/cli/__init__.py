"""The command ``grilly-optim``: a subcommand per module, each imported only when it is called."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys

from grilly_optim._errors import DeviceLost, DeviceUnavailable, OutOfDeviceMemory
from grilly_optim._extras import MissingExtra

# Subcommand -> what it does. Its module has add_arguments(parser) and run(options) -> exit status.
COMMANDS = {
    "devices": "list the devices of this machine, and why one cannot be used",
    "demo": "train on real data",
    "bench": "measure the kernels against NumPy and, where installed, torch, numba and thinc",
}

INTERRUPTED = 130  # what a shell reports for Ctrl-C


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="grilly-optim", description="Optimizers for NumPy arrays, on Vulkan GPUs and processors."
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    module = None
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name in arguments[:1]:
            module = importlib.import_module(f"grilly_optim.cli.{name}")
            module.add_arguments(sub)
    options = parser.parse_args(arguments)
    if options.version:
        import grilly_optim

        print(f"grilly-optim {grilly_optim.__version__}")
        return 0
    if module is None:
        parser.print_help()
        return 2
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        return int(module.run(options))
    except (DeviceUnavailable, DeviceLost, OutOfDeviceMemory, MissingExtra) as error:
        print(f"grilly-optim: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("grilly-optim: interrupted", file=sys.stderr)
        return INTERRUPTED
