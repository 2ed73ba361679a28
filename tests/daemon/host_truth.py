"""Whether what the control plane knows of a restore is true, by what its engine wrote down itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.daemon.host_notes import Notes
    from tests.daemon.host_plan import Course

UNFINISHED: Final = ("queued", "preparing", "in_progress")
FINAL: Final = ("completed", "completed_with_errors", "failed", "stopped")
PATHS: Final = {
    "/state": "state",
    "/files_restores": "files",
    "/bytes-restored": "bytes",
    "/errors": "errors",
}


@dataclass(frozen=True)
class Record:
    """A restore at the control plane: its document, the requests about it, and the stops that were erased."""

    document: dict[str, Any]
    history: list[dict[str, Any]]
    erased_stops: int

    @property
    def taken(self) -> list[dict[str, Any]]:
        """What the patches said that were taken, by member; the time of each is `time`."""
        return [
            {"time": request["time"]}
            | {
                PATHS[operation["path"]]: operation["value"]
                for operation in request["body"]
                if operation["path"] in PATHS
            }
            for request in self.history
            if request["method"] == "PATCH" and request["applied"]
        ]

    @property
    def is_over(self) -> bool:
        return self.document["state"] in FINAL

    @property
    def over_at(self) -> float | None:
        """When the control plane took the result, in seconds since the epoch."""
        times = [patch["time"] for patch in self.taken if patch.get("state") in FINAL]
        return datetime.fromisoformat(times[0]).timestamp() if times else None


def untruths(course: Course, notes: Notes, record: Record) -> list[str]:
    """What is not true of a record, in words; nothing if it is true."""
    return [*_of_the_end(course, notes, record), *_of_the_way(record)]


def _of_the_end(course: Course, notes: Notes, record: Record) -> Iterator[str]:
    known, errors = record.document, record.document["errors"]
    if known["state"] != course.end.state:
        yield f"it is {known['state']}, and should be {course.end.state}"
    if notes.state is not None and notes.state != known["state"]:
        yield f"its engine ended as {notes.state}, and it is {known['state']}"
    if errors["reason"] not in course.end.reasons:
        yield f"its reason is {errors['reason']!r}, and not one of {sorted(course.end.reasons)}"
    if errors["count"] != notes.errors:
        yield f"it has {errors['count']} errors, and its engine had {notes.errors}"
    for name, count, told in (
        ("files", notes.files, notes.told_files),
        ("bytes", notes.bytes, notes.told_bytes),
    ):
        is_exact = notes.state is not None
        least, most = (count if is_exact else told), count
        if not least <= known[f"{name}_restored"] <= most:
            yield f"it has {known[f'{name}_restored']} {name}, and its engine restored {least} to {most}"
    started, ended = known["started_time"], known["ended_time"]
    if not started or not ended or datetime.fromisoformat(started) > datetime.fromisoformat(ended):
        yield f"it began at {started} and ended at {ended}"


def _of_the_way(record: Record) -> Iterator[str]:
    taken = record.taken
    for name in ("files", "bytes"):
        counts = [patch[name] for patch in taken if name in patch]
        if counts != sorted(counts):
            yield f"its {name} went down: {counts}"
    counts = [patch["errors"]["count"] for patch in taken if "errors" in patch]
    if counts != sorted(counts):
        yield f"its errors went down: {counts}"
    states = [patch["state"] for patch in taken if "state" in patch and patch["state"] != "stop_requested"]
    if states != sorted(states, key=(*UNFINISHED, *FINAL).index):
        yield f"its state went backwards: {states}"
    if sum(state in FINAL for state in states) != 1:
        yield f"it did not end once: {states}"
    if record.erased_stops:
        yield f"{record.erased_stops} requests to stop it were erased"
