"""Which calls of the system are of the spool and of the delivery, and what is done to one of them."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import Enum, StrEnum

INET = frozenset({2, 10})
"""Address families of a network."""


class Way(Enum):
    """How it is known what a call is made on."""

    PATH = "a path among its arguments"
    DESCRIPTOR = "a descriptor that is open on it"
    SOCKET = "the family of a new socket"
    ACCEPT = "a connection that comes in"


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the system."""

    name: str
    way: Way
    path: int = 0
    """Which argument the path is."""
    opens: bool = False
    """Whether its result is a descriptor."""
    needs_space: bool = False
    """Whether a full disk can refuse it."""
    can_be_short: bool = False


CALLS = {
    0: Call("read", Way.DESCRIPTOR),
    1: Call("write", Way.DESCRIPTOR, needs_space=True, can_be_short=True),
    3: Call("close", Way.DESCRIPTOR),
    8: Call("lseek", Way.DESCRIPTOR),
    4: Call("stat", Way.PATH),
    5: Call("fstat", Way.DESCRIPTOR),
    6: Call("lstat", Way.PATH),
    16: Call("ioctl", Way.DESCRIPTOR),
    20: Call("writev", Way.DESCRIPTOR, needs_space=True),
    21: Call("access", Way.PATH),
    41: Call("socket", Way.SOCKET, opens=True),
    42: Call("connect", Way.DESCRIPTOR),
    44: Call("sendto", Way.DESCRIPTOR, can_be_short=True),
    45: Call("recvfrom", Way.DESCRIPTOR),
    46: Call("sendmsg", Way.DESCRIPTOR),
    47: Call("recvmsg", Way.DESCRIPTOR),
    48: Call("shutdown", Way.DESCRIPTOR),
    55: Call("getsockopt", Way.DESCRIPTOR),
    73: Call("flock", Way.DESCRIPTOR),
    74: Call("fsync", Way.DESCRIPTOR, needs_space=True),
    75: Call("fdatasync", Way.DESCRIPTOR, needs_space=True),
    77: Call("ftruncate", Way.DESCRIPTOR),
    82: Call("rename", Way.PATH, needs_space=True),
    83: Call("mkdir", Way.PATH, needs_space=True),
    87: Call("unlink", Way.PATH),
    217: Call("getdents64", Way.DESCRIPTOR),
    257: Call("openat", Way.PATH, path=1, opens=True, needs_space=True),
    262: Call("newfstatat", Way.PATH, path=1),
    285: Call("fallocate", Way.DESCRIPTOR, needs_space=True),
    288: Call("accept4", Way.ACCEPT, opens=True),
}
"""By their numbers on x86_64."""

SOCKETS = frozenset({"net", "api"})
_NEVER_FAIL = frozenset({"accept4", "ioctl", "getsockopt", "close", "shutdown"})
"""Not on a socket, with such errors as are tried here: there is no disk and no peer in it."""


LOOKS = frozenset(
    {
        *("stat", "fstat", "lstat", "newfstatat", "access", "lseek", "ioctl", "getdents64", "read", "flock"),
        *("getsockopt", "socket", "close"),
    }
)
"""Calls that change nothing that outlives the process: killed there, it leaves what it leaves at the next call."""


class Fault(StrEnum):
    """What is done to a call."""

    KILL = "kill"
    EIO = "EIO"
    BROKEN = "EIO from then on"
    ENOSPC = "ENOSPC"
    FULL = "ENOSPC from then on"
    SHORT = "short write"
    RESET = "reset"

    @property
    def lasts(self) -> bool:
        """Whether it is done to all later calls as well."""
        return self in {Fault.BROKEN, Fault.FULL}

    @property
    def error(self) -> int:
        """What the call fails with."""
        if self in {Fault.ENOSPC, Fault.FULL}:
            return errno.ENOSPC
        return errno.ECONNRESET if self is Fault.RESET else errno.EIO

    def fits(self, call: Call, on: str) -> bool:
        """Whether this can happen to such a call."""
        is_socket = on in SOCKETS
        if is_socket and call.name in _NEVER_FAIL and self is not Fault.KILL:
            return False
        if self is Fault.SHORT:
            return call.can_be_short
        if self is Fault.RESET:
            return is_socket
        if self in {Fault.ENOSPC, Fault.FULL}:
            return call.needs_space and not is_socket
        return not (self is Fault.BROKEN and is_socket)


@dataclass(frozen=True, slots=True)
class Point:
    """One fault at one call: the `nth` of its name on the same file, or on sockets of the same kind."""

    fault: Fault
    call: str
    on: str
    nth: int

    def __str__(self) -> str:
        return f"{self.fault} at {self.call} of {self.on}, number {self.nth}"

    def encode(self) -> str:
        """An argument of a command."""
        return "|".join([self.fault.value, self.call, self.on, str(self.nth)])

    @staticmethod
    def decode(text: str) -> Point | None:
        """What `encode` made; no point of an empty text."""
        if not text:
            return None
        fault, call, on, nth = text.split("|")
        return Point(Fault(fault), call, on, int(nth))
