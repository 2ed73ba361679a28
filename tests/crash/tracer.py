"""Runs a program under ptrace, numbers its calls on the spool and on its sockets, and has one of them fail.

    python -m tests.crash.tracer LOG SPOOL FAULT -- COMMAND ...

strace's injection counts the calls of each thread by itself, and each write of the spool is made by a thread of its
own: it cannot name the second fsync of the program. Nor can it cut a write short so that the first half is written. So
this does what strace does, with one count for the whole process. A child that the program starts is not traced.

LOG gets a JSON line for each call: its name, what it was made on, how many such there were, and whether it was hit.
A fault that lasts does so until there is a file LOG.mended.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tests.crash.faults import CALLS, INET, Call, Fault, Point, Way

TRACEME, POKEUSER, SYSCALL, SETOPTIONS, GET_SYSCALL_INFO = 0, 6, 24, 0x4200, 0x420E
SYSGOOD, ON_CLONE, ON_EXEC, EXITKILL = 1, 8, 16, 1 << 20
ENTRY, EXIT = 1, 2
WALL = 0x40000000
SYSCALL_STOP = signal.SIGTRAP | 0x80
RAX, RDX, ORIG_RAX = 80, 96, 120
"""Where the registers of x86_64 are: the result, the third argument, and the number of the call."""
PATH_BYTES = 300


class _Info(ctypes.Structure):
    """What PTRACE_GET_SYSCALL_INFO tells; of the end of a call, `number` is its result."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("number", ctypes.c_int64),
        ("args", ctypes.c_uint64 * 6),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, thread: int, address: int, data: Any) -> int:
    return int(_libc.ptrace(request, thread, address, data))


@dataclass
class Pending:
    """A call between its start and its end."""

    call: Call
    args: list[int]
    on: str
    error: int = 0
    """What it is to fail with, in place of its result."""


@dataclass
class Tracer:
    """One traced program."""

    spool: str
    point: Point | None
    log: TextIO
    process: int = 0
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    files: dict[int, str] = field(default_factory=dict)
    """What the descriptors that matter are open on."""
    pending: dict[int, Pending] = field(default_factory=dict)
    known: set[int] = field(default_factory=set)
    has_hit: bool = False

    def run(self, command: list[str]) -> int:
        """Run `command` to its end; returns its wait status."""
        self.process = _start(command)
        self.known.add(self.process)
        _ptrace(SETOPTIONS, self.process, 0, SYSGOOD | ON_CLONE | ON_EXEC | EXITKILL)
        _ptrace(SYSCALL, self.process, 0, 0)
        while True:
            try:
                thread, status = os.waitpid(-1, WALL)
            except ChildProcessError:
                raise RuntimeError("the program is gone, and nobody was told how it ended") from None
            if not os.WIFSTOPPED(status):
                if thread == self.process:
                    return status
                continue
            self._go_on(thread, status)

    def _go_on(self, thread: int, status: int) -> None:
        number, event = os.WSTOPSIG(status), status >> 16
        deliver = 0
        if number == SYSCALL_STOP:
            self._syscall(thread)
        elif event == 0 and (number != signal.SIGSTOP or thread in self.known):
            deliver = number
        self.known.add(thread)
        _ptrace(SYSCALL, thread, 0, deliver)

    def _syscall(self, thread: int) -> None:
        info = _Info()
        if _ptrace(GET_SYSCALL_INFO, thread, ctypes.sizeof(info), ctypes.byref(info)) < 0:
            return  # it was killed meanwhile
        if info.op == ENTRY and (call := CALLS.get(info.number)) is not None:
            self._begin(thread, call, list(info.args))
        elif info.op == EXIT and (pending := self.pending.pop(thread, None)) is not None:
            self._end(thread, pending, info.number)

    def _begin(self, thread: int, call: Call, args: list[int]) -> None:
        on = self._what(call, args)
        if not on:
            return
        pending = self.pending[thread] = Pending(call, args, on)
        key = (call.name, on)
        self.counts[key] = nth = self.counts.get(key, 0) + 1
        hits = self._hits(call, on, nth)
        print(json.dumps({"call": call.name, "on": on, "nth": nth, "hit": hits}), file=self.log)
        if hits and self.point is not None:
            self.has_hit = True
            self._harm(thread, pending, self.point.fault)
        if call.name == "close":
            self.files.pop(args[0], None)

    def _hits(self, call: Call, on: str, nth: int) -> bool:
        point = self.point
        if point is None or not point.fault.fits(call, on):
            return False
        if self.has_hit:
            return point.fault.lasts and not mark_of(Path(self.log.name)).exists()
        return (call.name, on, nth) == (point.call, point.on, point.nth)

    def _harm(self, thread: int, pending: Pending, fault: Fault) -> None:
        if fault is Fault.KILL:
            os.kill(self.process, signal.SIGKILL)
        elif fault is Fault.SHORT:
            _ptrace(POKEUSER, thread, RDX, max(1, pending.args[2] // 2))
        else:
            pending.error = fault.error
            if pending.call.name != "close":  # one that fails has closed all the same
                _ptrace(POKEUSER, thread, ORIG_RAX, ctypes.c_void_p(2**64 - 1))

    def _end(self, thread: int, pending: Pending, result: int) -> None:
        if pending.error:
            _ptrace(POKEUSER, thread, RAX, ctypes.c_void_p(2**64 - pending.error))
        elif pending.call.opens and result >= 0:
            self.files[result] = pending.on

    def _what(self, call: Call, args: list[int]) -> str:
        """What a call is made on, if that matters; an empty text otherwise."""
        if call.way is Way.SOCKET:
            return "net" if args[0] in INET else ""
        if call.way is Way.ACCEPT:
            return "api"
        if call.way is Way.DESCRIPTOR:
            return self.files.get(args[0], "")
        path = self._text(args[call.path])
        if not path and call.path:  # fstat is newfstatat without a path
            return self.files.get(args[0], "")
        return self._named(path)

    def _named(self, path: str) -> str:
        if path != self.spool and not path.startswith(self.spool + "/"):
            return ""
        return generic(path[len(self.spool) :].lstrip("/")) or "."

    def _text(self, address: int) -> str:
        try:
            with Path(f"/proc/{self.process}/mem").open("rb", buffering=0) as memory:
                memory.seek(address)
                return memory.read(PATH_BYTES).split(b"\0")[0].decode("utf-8", "replace")
        except (OSError, OverflowError):
            return ""


def mark_of(log: Path) -> Path:
    """The file whose being there ends a fault that lasts."""
    return log.with_suffix(".mended")


def generic(name: str) -> str:
    """The name of a file of the spool without what differs from run to run."""
    for word in name.replace("/", ".").split("."):
        if word.count("-") == 4:
            return name.replace(word, f"ID{word[-1]}")
    return name


def _start(command: list[str]) -> int:
    process = os.fork()
    if process:
        _, status = os.waitpid(process, 0)
        if not os.WIFSTOPPED(status):
            raise RuntimeError("the program could not be traced")
        return process
    try:
        if _ptrace(TRACEME, 0, 0, 0) == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
            os.execvp(command[0], command)
    finally:
        os._exit(127)


def main() -> int:
    log, spool, point, _, *command = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with Path(log).open("w", buffering=1) as lines:
        status = Tracer(spool, Point.decode(point), lines).run(command)
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)


if __name__ == "__main__":
    sys.exit(main())
