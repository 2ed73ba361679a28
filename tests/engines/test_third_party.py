"""An engine of somebody else's: a package with an entry point, and nothing of the project touched."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.endtoend.agent import Agent, make_agent, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agent_reporter.reference import ReferenceServer

pytest.importorskip("hatchling", reason="hatchling builds the package")

ROOT = Path(__file__).parents[2]
TAPE = Path(__file__).parent / "third_party" / "tape"

ENGINE = """#!/bin/sh
echo "$@"
[ "$1" = --progress ] || exit 64
echo "tape: 1024 of 4096 bytes" >&2
echo "tape: cannot write /srv/a: No space left on device" >&2
echo "tape: 4096 of 4096 bytes" >&2
echo "tape: done" >&2
exit 1
"""

CONFORMS = """
import sys
from agent_reporter.testing import Recording, check_adapter
from tape_engine import Tape
done = b"tape: 1024 of 4096 bytes\\ntape: 4096 of 4096 bytes\\n%stape: done\\n"
print(check_adapter(Tape(), commands=[["tape-restore", "/dev/nst0"]], recordings=[
    Recording(err=done % b"", state="completed"),
    Recording(err=done % b"tape: cannot write /a: Permission denied\\n", returncode=1, state="completed_with_errors"),
    Recording(err=b"tape: there is no tape\\n", returncode=3, state="failed", reason="no_tape"),
]))
print(*sys.modules)
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has installed the package."""
    source = shutil.copytree(TAPE, tmp_path_factory.mktemp("source") / "tape")
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--target", site, source], check=True)
    return site


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ReferenceServer]:
    async for server in serve(tmp_path):
        yield server


def host(tmp_path: Path, server: ReferenceServer, *sites: Path) -> Agent:
    """A host on which `sites` are installed beside the project."""
    agent = make_agent(tmp_path / "host", server.url)
    agent.environment["PYTHONPATH"] = ":".join(map(str, (*sites, ROOT)))
    return agent


def script(tmp_path: Path, name: str, text: str) -> str:
    path = tmp_path / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def install(site: Path, engine: str, module: str) -> Path:
    """Put a package into `site` as an installer does, whose engine is the class Engine of `module`."""
    information = site / f"{engine}_package-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {engine}-package\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        f"[agent_reporter.engines]\n{engine} = {engine}_module:Engine\n"
    )
    (site / f"{engine}_module.py").write_text(module)
    return site


async def test_an_installed_engine_is_recognised_prepared_and_read(
    tmp_path: Path, server: ReferenceServer, site: Path
) -> None:
    agent = host(tmp_path, server, site)
    restore_id = server.start_restore()
    tape = script(tmp_path, "tape-restore", ENGINE)
    ended = await agent.run(restore_id, "nice", tape, "/dev/nst0", "/srv")
    assert ended.out == b"--progress /dev/nst0 /srv\n"
    assert ended.status == 1
    document = server.document(restore_id)
    assert document["state"] == "completed_with_errors"
    assert document["bytes_restored"] == 4096
    (error,) = server.errors(restore_id)["list"]
    assert (error["path"], error["type"]) == ("/srv/a", "no_space_left")
    assert "tape-restore ended with exit status 1" in document["errors"]["diagnostics"]


async def test_an_installed_engine_can_be_asked_for_by_name(
    tmp_path: Path, server: ReferenceServer, site: Path
) -> None:
    agent = host(tmp_path, server, site)
    restore_id = server.start_restore()
    wrapper = script(tmp_path, "backup.sh", "#!/bin/sh\necho 'tape: there is no tape' >&2; exit 3\n")
    ended = await agent.do("run", "--restore-id", restore_id, "--engine", "tape", "--", wrapper)
    assert ended.status == 3
    assert server.document(restore_id)["errors"]["reason"] == "no_tape"


async def test_an_engine_that_cannot_be_loaded_is_passed_over_with_a_warning(
    tmp_path: Path, server: ReferenceServer, site: Path
) -> None:
    broken = install(tmp_path / "broken", "broken", "import no_such_module")
    agent = host(tmp_path, server, broken, site)
    restore_id = server.start_restore()
    ended = await agent.run(restore_id, script(tmp_path, "tape-restore", ENGINE), "/dev/nst0")
    assert server.document(restore_id)["bytes_restored"] == 4096
    assert "The engine 'broken', broken_module:Engine, cannot be loaded" in ended.text
    assert "It is passed over." in ended.text


async def test_an_engine_that_raises_when_it_is_asked_about_a_command_is_passed_over(
    tmp_path: Path, server: ReferenceServer, site: Path
) -> None:
    raising = "from tape_engine import Tape\nclass Engine(Tape):\n    def recognises(self, invocation): return 1 / 0"
    agent = host(tmp_path, server, install(tmp_path / "raising", "raising", raising), site)
    restore_id = server.start_restore()
    ended = await agent.run(restore_id, "echo", "started")
    assert ended.out == b"started\n"
    assert "ZeroDivisionError" in ended.text
    assert server.document(restore_id)["state"] == "completed"


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        ("import no_such_module", "cannot be loaded: ModuleNotFoundError"),
        ("class Engine:\n    def __init__(self): raise OSError('no licence')", "OSError('no licence')"),
        ("raise SystemExit('no licence')", "SystemExit('no licence')"),
        ("class Engine:\n    name = 'broken'", "is not an agent_reporter.engines.adapter.Adapter"),
    ],
)
async def test_an_engine_that_cannot_be_loaded_is_an_error_when_asked_for_by_name(
    tmp_path: Path, server: ReferenceServer, module: str, problem: str
) -> None:
    agent = host(tmp_path, server, install(tmp_path / "broken", "broken", module))
    restore_id = server.start_restore()
    ended = await agent.do("run", "--restore-id", restore_id, "--engine", "broken", "--", "echo", "started")
    assert ended.status == 125
    assert ended.out == b""
    assert "broken_module:Engine" in ended.text
    assert problem in ended.text
    assert "Traceback" not in ended.text


@pytest.mark.parametrize("name", ["auto", "observe", "restic"])
async def test_an_engine_with_a_name_of_ours_does_not_replace_ours(
    tmp_path: Path, server: ReferenceServer, name: str
) -> None:
    agent = host(tmp_path, server, install(tmp_path / "impostor", name, "raise SystemExit('the impostor')"))
    restore_id = server.start_restore()
    restic = script(tmp_path, "restic", "#!/bin/sh\nexit 12\n")
    ended = await agent.do("run", "--restore-id", restore_id, "--engine", name, "--", restic, "restore", "x")
    assert ended.status == 12
    assert "the impostor" not in ended.text
    reason = "engine_failed" if name == "observe" else "wrong_password"
    assert server.document(restore_id)["errors"]["reason"] == reason


def test_the_kit_needs_only_what_a_plain_install_has(site: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CONFORMS],
        env={"PYTHONPATH": f"{site}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report, modules = done.stdout.splitlines()
    assert report.startswith("tape conforms: 3 recordings")
    assert not {"pytest", "hypothesis", "aiohttp", "tests"} & set(modules.split())
