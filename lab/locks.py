"""Locks between processes, by files. Where the system or the file system has none, work goes on without. No torch."""

from __future__ import annotations

from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def take(file: IO | int, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file until it is closed; False where there are no locks.

    Raises BlockingIOError where another process holds it, unless told to wait. That is EAGAIN alone: ENOLCK, ENOSYS and
    EOPNOTSUPP come from network shares and container mounts that know no locks, and nobody holds one there.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True
