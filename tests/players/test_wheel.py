"""What the wheel holds: the plug-in in beets' namespace, data beside the code, nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_wheel_holds_the_plug_in_and_the_data(tmp_path):
    # Built from a copy of what git tracks, so that nothing left by an earlier build is in it.
    files = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=True).stdout
    archive = tmp_path / "source.tar"
    packed = ["tar", "-C", ROOT, "--null", "--files-from=-", "-cf", archive]
    subprocess.run(packed, input=files, check=True)
    (tmp_path / "source").mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", tmp_path / "source"], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, "./source"]
    subprocess.run(command, cwd=tmp_path, check=True)

    (wheel,) = tmp_path.glob("msim_tf-*.whl")
    assert wheel.stat().st_size < 15e6  # the model included
    names = set(zipfile.ZipFile(wheel).namelist())
    # beetsplug is beets' namespace: an __init__.py there would hide beets' own plug-ins.
    assert {name for name in names if name.startswith("beetsplug/")} == {"beetsplug/msim.py"}
    package = {name.removeprefix("msim_tf/") for name in names if name.startswith("msim_tf/") and name.endswith(".py")}
    assert package == {path.relative_to(ROOT / "msim_tf").as_posix() for path in (ROOT / "msim_tf").rglob("*.py")}
    for data in ("py.typed", "library/web/index.html", "evaluate/templates", "saved_models/open6", "labels/"):
        assert any(name.startswith(f"msim_tf/{data}") for name in names), data
    assert {name.split("/")[0] for name in names} == {
        "beetsplug",
        "msim_tf",
        wheel.name.rsplit("-", 3)[0] + ".dist-info",
    }
