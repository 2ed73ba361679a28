from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.engines.running.io_counters import (
    Data,
    Sample,
    TreeTotal,
    Written,
    data_of,
    read_samples,
)
from agent_reporter.engines.running.process_tree import ProcessTree, become_subreaper
from agent_reporter.model.process_identity import ProcessIdentity
from agent_reporter.processes import identity
from tests.builders import needs_root, python
from tests.engines.watcher import Watcher, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MB = 1_000_000


def process(pid: int) -> ProcessIdentity:
    return ProcessIdentity(pid, start_ticks=pid, boot_id="boot")


def written(number: int) -> Written:
    return Written(number, 2 * number, number // 3)


def sample(pid: int, parent: int | None, number: int | None) -> Sample:
    return Sample(
        process(pid),
        None if parent is None else process(parent),
        None if number is None else written(number),
    )


def total(*looks: list[Sample]) -> int:
    tree = TreeTotal()
    for look in looks:
        tree.add(look)
    return tree.written.bytes_by_calls


def test_a_child_that_its_parent_reaped_is_counted_once() -> None:
    assert total([sample(1, None, 5), sample(2, 1, 70)], [sample(1, None, 75)]) == 75


def test_a_grandchild_is_found_in_whoever_is_left_of_its_line() -> None:
    line = [sample(1, None, 5), sample(2, 1, 70), sample(3, 2, 800)]
    assert total(line, [sample(1, None, 875)]) == 875


def test_a_child_that_nobody_reaped_is_kept_as_it_was_seen_last() -> None:
    assert total([sample(1, None, 5), sample(2, 1, 70)], [sample(1, None, 5)]) == 75


def test_an_orphan_that_the_agent_reaped_is_kept_as_it_was_seen_last() -> None:
    assert total([sample(1, None, 5), sample(2, None, 70)], [sample(1, None, 6)]) == 76


def test_what_was_seen_stays_when_nothing_is_left() -> None:
    assert total([sample(1, None, 5), sample(2, 1, 70)], [], []) == 75


def test_a_process_that_may_not_be_read_hands_on_what_its_children_had() -> None:
    looks = [
        [sample(1, None, 5), sample(2, 1, None), sample(3, 2, 70)],
        [sample(1, None, 5), sample(2, 1, None)],
        [sample(1, None, 75)],
    ]
    assert [total(*looks[:end]) for end in (1, 2, 3)] == [75, 75, 75]


def test_a_process_that_was_only_not_seen_counts_once_when_it_comes_back() -> None:
    alone = [sample(1, None, 100)]
    assert [total(alone, []), total(alone, [], alone), total(alone, [], [], alone)] == [100] * 3
    both, without = [sample(1, None, 5), sample(2, 1, 70)], [sample(1, None, 6)]
    assert total(both, without) == 75
    assert total(both, without, [sample(1, None, 8), sample(2, 1, 900)]) == 908


def test_one_that_comes_back_leaves_to_the_lost_what_they_had() -> None:
    three = [sample(1, None, 5), sample(2, 1, 70), sample(3, 1, 800)]
    assert total(three, [sample(1, None, 5)], [sample(1, None, 5), sample(2, 1, 70)]) == 875


def test_that_a_process_may_not_be_read_is_remembered() -> None:
    tree = TreeTotal()
    tree.add([sample(1, None, None)])
    tree.add([])
    assert tree.has_unreadable
    assert tree.written == Written()


@dataclass
class Kernel:
    """Processes that write, end and are reaped, as Linux counts them: 1 is the engine, 0 is the agent."""

    parents: dict[int, int] = field(default_factory=lambda: {1: 0})
    counts: dict[int, int] = field(default_factory=lambda: {1: 0})
    written: int = 0

    def spawn(self, parent: int, _: int) -> None:
        child = max(self.parents) + 1
        self.parents[child] = parent
        self.counts[child] = 0

    def write(self, who: int, number: int) -> None:
        self.counts[who] += number
        self.written += number

    def end(self, who: int, _: int) -> None:
        """It is reaped by its parent, which gets its counts."""
        if who != 1:
            parent = self._gone(who)
            if parent:
                self.counts[parent] += self.counts[who]
            del self.counts[who]

    def vanish(self, who: int, _: int) -> None:
        """Its parent ignores SIGCHLD: nobody gets its counts."""
        if who != 1:
            self._gone(who)
            del self.counts[who]

    def _gone(self, who: int) -> int:
        for child, parent in self.parents.items():
            if parent == who:
                self.parents[child] = 0
        return self.parents.pop(who)

    def samples(self) -> list[Sample]:
        return [sample(pid, parent or None, self.counts[pid]) for pid, parent in self.parents.items()]


def seen(samples: list[Sample], missed: int | None) -> list[Sample]:
    """A look that did not see one of them, which so is nobody's parent in it."""
    there = [one for number, one in enumerate(samples) if number != missed]
    processes = {one.process for one in there}
    return [one if one.parent in processes else replace(one, parent=None) for one in there]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([Kernel.spawn, Kernel.spawn, Kernel.write, Kernel.write, Kernel.end, Kernel.vanish]),
        st.integers(0, 20),
        st.integers(0, 10_000),
        st.booleans(),
    ),
    max_size=60,
)
Event = tuple["Callable[[Kernel, int, int], None]", int, int, bool]


def happen(kernel: Kernel, event: Event) -> None:
    what, who, number, _ = event
    what(kernel, sorted(kernel.parents)[who % len(kernel.parents)], number)


@given(EVENTS)
def test_the_total_never_goes_down_and_is_never_more_than_was_written(events: list[Event]) -> None:
    kernel, tree, before = Kernel(), TreeTotal(), Written()
    for event in events:
        happen(kernel, event)
        if event[-1]:
            tree.add(kernel.samples())
            now = tree.written
            assert before.beyond(now) == Written()
            assert now.bytes_by_calls <= kernel.written
            before = now


@given(EVENTS, st.lists(st.integers(0, 5) | st.none(), min_size=60, max_size=60))
def test_the_total_never_goes_down_whoever_is_not_seen(events: list[Event], missed: list[int | None]) -> None:
    kernel, tree, before = Kernel(), TreeTotal(), Written()
    for event, one in zip(events, missed, strict=False):
        happen(kernel, event)
        tree.add(seen(kernel.samples(), one))
        assert before.beyond(tree.written) == Written()
        before = tree.written


@given(EVENTS, st.integers(0, 5))
def test_whoever_is_not_seen_in_one_look_nothing_is_counted_twice(events: list[Event], missed: int) -> None:
    kernel, tree = Kernel(), TreeTotal()
    for event in events:
        happen(kernel, event)
        tree.add(kernel.samples())
        tree.add(seen(kernel.samples(), missed))
        tree.add(kernel.samples())
        assert tree.written.bytes_by_calls == kernel.written


@given(EVENTS)
def test_with_a_look_after_every_event_nothing_is_missed(events: list[Event]) -> None:
    kernel, tree = Kernel(), TreeTotal()
    for event in events:
        happen(kernel, event)
        tree.add(kernel.samples())
        assert tree.written.bytes_by_calls == kernel.written


@given(EVENTS)
def test_where_parents_reap_their_children_one_look_at_the_end_will_do(events: list[Event]) -> None:
    kernel, tree = Kernel(), TreeTotal()
    for event in events:
        # Without children of its own it leaves no orphan.
        _, who, *_ = event
        ends = sorted(kernel.parents)[who % len(kernel.parents)]
        if event[0] is Kernel.vanish or (event[0] is Kernel.end and ends in kernel.parents.values()):
            continue
        happen(kernel, event)
    tree.add(kernel.samples())
    assert tree.written.bytes_by_calls == kernel.written


@pytest.mark.parametrize(
    ("counters", "printed", "unread", "data"),
    [
        (Written(5_000_000, 5_001_216, 5), 0, 0, 5_000_000),  # cp: pages are more than a file fills
        (Written(60, 40_960, 10), 0, 0, 60),  # ten small files
        (Written(15_000_096, 5_001_216, 196), 0, 0, 5_001_216),  # cat | cat | dd
        (Written(0, 4_194_304, 0), 0, 0, 4_194_304),  # into a mapped file
        (Written(90_000, 4_194_304, 9), 0, 0, 4_194_304),  # asynchronous IO, and a log
        (Written(8_000_000, 1_003_520, 8), 0, 0, 1_003_520),  # the same pages eight times
        (Written(7_000_000, 1_003_520, 7), 0, 6_500_000, 1_003_520),  # of which most may be words
        (Written(2_000_000, 0, 2), 3_000_000, 0, 0),
        (Written(2_000_000, 0, 2), 1_500_000, 1_000_000, 0),
        (Written(), 0, 0, 0),
    ],
)
def test_data_is_told_from_pipes_pages_and_words(
    counters: Written, printed: int, unread: int, data: int
) -> None:
    assert data_of(counters, printed, unread) == Data(data)


@pytest.mark.parametrize(
    ("counters", "printed", "unread", "data"),
    [
        (Written(5_000_000, 0, 5), 0, 0, 5_000_000),  # into memory, or over the network
        (Written(7_000_000, 0, 7), 2_000_000, 0, 5_000_000),  # and it says what it does
        (Written(7_000_000, 0, 7), 2_000_000, 1_000_000, 4_000_000),  # of which some is not read yet
        (Written(20_000_006, 4096, 6), 0, 0, 20_000_006),  # into memory, and a line of a log on a disk
        (Written(30_000_000, 0, 300), 0, 0, 30_000_000),  # a pipeline into memory: three times
        (Written(100_000_000, 12_000_000, 90), 0, 0, 100_000_000),
    ],
)
def test_where_disks_have_no_fair_part_in_it_all_that_was_written_counts_and_that_is_known(
    counters: Written, printed: int, unread: int, data: int
) -> None:
    assert data_of(counters, printed, unread) == Data(data, has_pipes=True)


class Tree:
    """A real tree of processes below this one, looked at."""

    def __init__(self, *command: str) -> None:
        become_subreaper()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        engine = identity(self.process.pid)
        assert engine is not None
        self.members = ProcessTree(engine)
        self.total = TreeTotal()

    def look(self) -> int:
        while (samples := read_samples(self.members.members())) is None:
            pass
        self.total.add(samples)
        return data_of(self.total.written, printed_bytes=0).bytes

    def says(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().decode() == f"{word}\n"

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def ends(self) -> None:
        """Wait until it ended; it is not reaped."""
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)


@pytest.fixture
def trees() -> Iterator[list[Tree]]:
    trees: list[Tree] = []
    yield trees
    for tree in trees:
        tree.process.kill()
        tree.process.communicate()
        tree.members.living()


def close(number: int, expected: int) -> bool:
    """Not less, and hardly more: the words that processes exchange are written, too."""
    return expected <= number <= expected + 20_000


def test_a_child_that_is_reaped_and_one_that_runs_are_both_counted(trees: list[Tree], tmp_path: Path) -> None:
    dd = f"dd if=/dev/zero bs=1000000 count=3 2>/dev/null of={tmp_path}"
    tree = Tree("sh", "-c", f"{dd}/one; echo one; read x; {dd}/two; echo two; read x")
    trees.append(tree)
    tree.says("one")
    assert close(tree.look(), 3 * MB)
    tree.go_on()
    tree.says("two")
    assert close(tree.look(), 6 * MB)
    tree.go_on()
    tree.ends()
    assert close(tree.look(), 6 * MB), "a zombie can still be read"


def test_a_pipeline_is_counted_once(trees: list[Tree], tmp_path: Path) -> None:
    tree = Tree("sh", "-c", f"head -c 5000000 /dev/zero | cat | cat > {tmp_path}/file")
    trees.append(tree)
    tree.ends()
    assert close(tree.look(), 5 * MB)


def test_an_orphan_stays_counted_when_the_agent_reaps_it(trees: list[Tree], tmp_path: Path) -> None:
    orphan = f"head -c 4000000 /dev/zero > {tmp_path}/file; echo $$; read x <&3"
    tree = Tree("sh", "-c", f"exec 3<&0; sh -c '(setsid sh -c \"{orphan}\" &)'; read x")
    trees.append(tree)
    assert tree.process.stdout is not None
    tree.process.stdout.readline()
    assert close(tree.look(), 4 * MB)
    tree.go_on()
    tree.go_on()
    tree.ends()
    while tree.members.living():
        pass
    assert close(tree.look(), 4 * MB)


def test_a_child_that_nobody_reaps_stays_counted(trees: list[Tree], tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        f"child = subprocess.Popen(['sh', '-c', 'head -c 2000000 /dev/zero > {tmp_path}/file; echo; read x'])\n"
        "child.wait(); print('gone', flush=True); sys.stdin.readline()"
    )
    tree = Tree(sys.executable, "-c", code)
    trees.append(tree)
    tree.says("")
    assert close(tree.look(), 2 * MB)
    tree.go_on()
    tree.says("gone")
    assert close(tree.look(), 2 * MB)


def test_a_mapped_file_is_counted_by_its_pages(trees: list[Tree], tmp_path: Path) -> None:
    code = (
        "import mmap, sys\n"
        f"file = open('{tmp_path}/mapped', 'w+b'); file.truncate(3 << 20)\n"
        "mmap.mmap(file.fileno(), 3 << 20)[:] = bytes(3 << 20); print('done', flush=True); sys.stdin.readline()"
    )
    tree = Tree(sys.executable, "-c", code)
    trees.append(tree)
    tree.says("done")
    assert close(tree.look(), 3 << 20)


@needs_root
def test_a_process_that_is_another_users_is_not_counted_and_that_is_known(
    trees: list[Tree], tmp_path: Path
) -> None:
    tree = Tree("sh", "-c", f"head -c 2000000 /dev/zero > {tmp_path}/file; echo done; read x")
    trees.append(tree)
    tree.says("done")
    code = (
        "import os, sys\n"
        "from agent_reporter.engines.running.io_counters import read_samples\n"
        "from agent_reporter.processes import read_stat\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "print(read_samples([read_stat(int(sys.argv[1]))])[0].written)"
    )
    assert python(code, tree.process.pid, cwd=Path(__file__).parents[2]).stdout == "None\n"


def test_a_look_in_whose_middle_somebody_is_reaped_tells_nothing(trees: list[Tree]) -> None:
    tree = Tree("true")
    trees.append(tree)
    members = tree.members.members()
    assert len(members) == 1
    tree.process.communicate()
    assert read_samples(members) is None


async def test_an_engine_is_looked_at_after_its_end_and_before_it_is_gone(
    watcher: Watcher, tmp_path: Path
) -> None:
    total = TreeTotal()

    def look(tree: ProcessTree) -> None:
        samples = read_samples(tree.members())
        assert samples is not None
        total.add(samples)

    command = ("sh", "-c", f"head -c 1000000 /dev/zero > {tmp_path}/file; echo a word")
    engine = await watcher.start(*command, at_exit=look)
    assert await engine.wait() == 0
    assert engine.printed_bytes == len("a word\n")
    assert data_of(total.written, engine.printed_bytes) == Data(MB)
    await until(lambda: identity(engine.pid) is None)


async def test_an_engine_is_reaped_also_when_looking_at_it_fails(watcher: Watcher) -> None:
    def fail(_: ProcessTree) -> None:
        raise RuntimeError("a mistake of ours")

    engine = await watcher.start("sh", "-c", "exit 3", at_exit=fail)
    assert await engine.wait() == 3
    await until(lambda: watcher.warnings != [])
    assert "a mistake of ours" in watcher.warnings[0]
