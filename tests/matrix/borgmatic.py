"""borgmatic, by its recipe: it calls borg by way of `config/borg-reported`."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.matrix.scene import Case, Record, Scene
from tests.matrix.truth import amount, counts_are, differences, errors_are_of, nothing_is_there

if TYPE_CHECKING:
    from collections.abc import Sequence

RECIPE = Path(__file__).parents[2] / "config" / "borg-reported"


def found() -> Sequence[Borgmatic]:
    """The one in the folder of the engines, or on PATH."""
    folder = Path(os.environ.get("AGENT_REPORTER_TEST_ENGINES", ""), "borgmatic")
    path = str(folder) if folder.exists() else shutil.which("borgmatic")
    return [Borgmatic(path)] if path and shutil.which("borg") else []


class Borgmatic:
    name = "borgmatic"
    cases = frozenset({Case.WELL, Case.SOME_FAIL, Case.PASSWORD})

    def __init__(self, path: str) -> None:
        self._path = path
        self.version = subprocess.run(
            [path, "--version"], check=True, capture_output=True, text=True
        ).stdout.strip()

    def build(self, directory: Path) -> None:
        """3 MB in 30 files."""
        self._directory, self._source = directory, directory / "source"
        self._source.mkdir()
        content = random.Random(0)
        for file in range(30):
            (self._source / f"file{file:02}").write_bytes(content.randbytes(100_000))
        configuration = self._configuration("right", "a passphrase")
        for words in (["repo-create", "--encryption", "repokey-blake2"], ["create"]):
            self._do(*words, configuration=configuration)

    def scene(self, case: Case, target: Path) -> Scene:
        passphrase = "another" if case is Case.PASSWORD else "a passphrase"
        configuration = self._configuration(case.name, passphrase)
        command = [self._path, "--config", configuration, "extract", "--archive", "latest"]
        scene = partial(
            Scene,
            [*command, "--destination", str(target)],
            calls_run=False,
            environment={"BORG_CACHE_DIR": str(target.parent / "cache"), **self._environment()},
        )
        match case:
            case Case.SOME_FAIL:
                name = str(self._source.relative_to("/") / "file07")
                (target / name / "in the way").mkdir(parents=True)
                partly = ("completed_with_errors", "unable_to_process_some_files")
                return scene(expected=partly, untruths=partial(self._one_failed, target, name))
            case Case.PASSWORD:
                # borgmatic asks borg for the archive's name before: the restore is never begun.
                return scene(expected=("start_requested", ""), untruths=partial(nothing_is_there, target))
            case _:
                return scene(expected=("completed", ""), untruths=partial(self._all_is_there, target))

    def _configuration(self, name: str, passphrase: str) -> str:
        path = self._directory / f"{name}.yaml"
        path.write_text(
            f"source_directories: [{self._source}]\n"
            f"repositories: [{{path: {self._directory / 'repository'}}}]\n"
            f"local_path: {RECIPE}\n"
            f"encryption_passphrase: {passphrase}\n"
        )
        return str(path)

    def _environment(self) -> dict[str, str]:
        return {"BORG_BASE_DIR": str(self._directory), "XDG_RUNTIME_DIR": str(self._directory)}

    def _do(self, *words: str, configuration: str) -> None:
        environment = {**os.environ, **self._environment()}
        command = [self._path, "--config", configuration, *words]
        subprocess.run(command, check=True, capture_output=True, env=environment)

    def _all_is_there(self, target: Path, record: Record) -> list[str]:
        restored = target / self._source.relative_to("/")
        return [
            *differences(self._source, restored),
            *errors_are_of(record, []),
            *counts_are(record, bytes=amount(target).bytes),  # borgmatic archives a file of its own, too
        ]

    def _one_failed(self, target: Path, name: str, record: Record) -> list[str]:
        restored = target / self._source.relative_to("/")
        return [*differences(self._source, restored, but_for=["file07"]), *errors_are_of(record, [name])]
