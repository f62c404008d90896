"""What ends a timing without a figure, each said in its message."""

from __future__ import annotations


class Refused(RuntimeError):
    """The machine is in no state for a publishable figure; the message says why."""


class TooLarge(Refused):
    """A batch needs more memory than is free: the machine would swap, or the runtime end."""


class Broken(RuntimeError):
    """The pack, or the network in it, is not as it was made; the message says what."""


class Missing(LookupError):
    """What the command needs is not on this machine; the message says what would do."""


class Usage(Exception):
    """What was asked for can't be done by this pack; the message says what can."""
