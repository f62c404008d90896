"""Compression methods, one file each; importing this package finds them all."""

import importlib
import pkgutil

from lab.methods.base import METHODS, Finished, Inputs, Method, Roles, Step, create, finish, options_of

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "Finished", "Inputs", "Method", "Roles", "Step", "create", "finish", "options_of"]
