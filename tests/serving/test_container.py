"""The image without a container engine: its steps run in a clean virtual environment, its programs as another user.

Paths of the image are put below a folder of the test, and its ports are replaced by free ones; nothing else is changed.
What only an engine can show is not tested: the base image, layers, volumes, networks, arm64.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from containerfile import stages

import msim_tf
from msim_tf.cli import cli
from msim_tf.cli.serving import serve
from msim_tf.search.schema import DATABASE

ROOT = Path(__file__).parents[2]
SERVING = ROOT / "serving"
FOLDERS = ("/source", "/wheels", "/opt/msim", "/data", "/music", "/tmp/numba")


@pytest.fixture(scope="module")
def image():
    """The stages of the Containerfile: what builds the wheel, and what is shipped."""
    build, final = stages(ROOT / "Containerfile")
    return build, final


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((SERVING / "compose.navidrome.yaml").read_text())


def test_the_image_is_small_in_rights(image):
    build, final = image
    assert build.image == final.image and re.search(r"python:3\.1[012]-slim", final.image)
    (user,) = final.all("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    # Everything that is run after USER is the entry point.
    assert "RUN" not in [name for name, _ in final.steps[[name for name, _ in final.steps].index("USER") :]]
    assert final.all("VOLUME") == ["/data"] and final.environment()["MSIM_LIBRARY"].startswith("/data/")
    assert "/healthz" in " ".join(final.command("HEALTHCHECK"))
    assert (ROOT / ".dockerignore").resolve() == ROOT / ".containerignore"


def test_the_compose_file_has_the_keys_of_the_compose_specification(compose, image):
    assert set(compose) == {"services", "volumes"}
    types = {
        **{"image": str, "build": dict, "command": list, "environment": dict, "ports": list, "volumes": list},
        **{"healthcheck": dict, "depends_on": dict, "read_only": bool, "tmpfs": list, "cap_drop": list},
        **{"security_opt": list, "restart": str},
    }
    services = compose["services"]
    for name, service in services.items():
        assert all(isinstance(value, types[key]) for key, value in service.items()), name
        # Music is read only everywhere; what is written is in named volumes.
        mounts = dict(reversed(re.fullmatch(r"(.+?):(/\w+(?::ro)?)", text).groups()) for text in service["volumes"])
        assert mounts.pop("/music:ro").startswith("${MUSIC:?")
        assert set(mounts) == {"/data"} and set(mounts.values()) <= set(compose["volumes"])
    conditions = {"service_started", "service_healthy", "service_completed_successfully"}
    for needed, how in services["msim"]["depends_on"].items():
        assert needed in services and how["condition"] in conditions
        assert how["condition"] != "service_healthy" or "healthcheck" in services[needed]
    assert (SERVING / services["index"]["build"]["context"] / services["index"]["build"]["dockerfile"]).is_file()
    assert services["msim"]["image"] == services["index"]["image"]


def test_the_compose_file_runs_commands_that_msim_has(compose, image):
    services = compose["services"]
    for name in ("index", "msim"):
        command, *arguments = services[name]["command"]
        parsed = cli.get_command(None, command).make_context(command, arguments)  # raises for an unknown option
        folder = parsed.params["library"]
        assert str(folder) == image[1].environment()["MSIM_LIBRARY"]
    assert parsed.params["subsonic"] == "http://navidrome:4533" and "navidrome" in services
    assert services["index"]["healthcheck"]["test"] == ["CMD", "test", "-s", f"{folder}/{DATABASE}"]
    defaults = {parameter.name: parameter.default for parameter in serve.params}
    ports = [defaults["rest_port"], defaults["subsonic_port"]]
    assert services["msim"]["ports"] == [f"127.0.0.1:{port}:{port}" for port in ports]
    assert set(map(str, ports)) <= set(image[1].all("EXPOSE")[0].split())


class Root:
    """The image's root: its paths are below ``path``."""

    def __init__(self, path, final):
        self.path = path
        self.final = final
        self.python = base_python()
        # Another user than who runs the tests, if that user may start Python.
        self.switches = open_to_all(self.python)
        self.ports = {"8500": str(free_port()), "8501": str(free_port())}

    def placed(self, text):
        """A text of the Containerfile with the image's folders below ``path`` and free ports."""
        folders = re.compile(rf"(?<![\w.])({'|'.join(FOLDERS)})(?![\w-])")
        text = folders.sub(lambda match: f"{self.path}{match[1]}", text)
        return re.sub(r"\b850[01]\b", lambda match: self.ports[match[0]], text)

    def run(self, arguments, cwd):
        """A RUN instruction, as the user who builds; ``python`` is this one, in the place of the base image's."""
        environment = {"PATH": f"{self.path}/base/bin:{os.environ['PATH']}", "HOME": str(self.path / "data")}
        environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        done = subprocess.run(["sh", "-ec", arguments], cwd=cwd, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{arguments}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"

    def start(self, words, **options):
        """A program of the image as its user where possible, see ``switches``."""
        environment = {name: self.placed(value) for name, value in self.final.environment().items()}
        if self.switches:
            user, group = self.final.all("USER")[0].split(":")
            options |= {"user": int(user), "group": int(group), "extra_groups": []}
        words = [self.placed(word) for word in words]
        # Popen looks the program up in this process's PATH.
        program = shutil.which(words[0], path=environment["PATH"])
        assert program, f"{words[0]} is not in {environment['PATH']}"
        folder = self.path / "data"
        return subprocess.Popen(
            [program, *words[1:]], env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, **options,
        )  # fmt: skip


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def base_python():
    """A Python for the virtual environment; one that the image's user may start, if there is one."""
    here = Path(sys.executable).resolve()
    system = [Path(f"/usr/bin/python3.{minor}") for minor in (10, 11, 12)]
    usable = [python for python in (here, *system) if python.exists() and open_to_all(python) and makes_venvs(python)]
    return (usable or [here])[0]


def open_to_all(python):
    return all(folder.stat().st_mode & 0o001 for folder in python.resolve().parents)


def makes_venvs(python):
    return subprocess.run([python, "-c", "import ensurepip, venv"], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def built(image):
    """The root after every RUN and COPY of both stages."""
    if os.getuid() != 0:
        pytest.skip("the image's steps give files to its user, which takes root")
    build, final = image
    folder = Path(tempfile.mkdtemp(prefix="msim-image-"))
    folder.chmod(0o755)
    try:
        root = Root(folder, final)
        subprocess.run([root.python, "-m", "venv", folder / "base"], check=True)  # the base image: Python with pip
        source = folder / "source"
        source.mkdir()
        tracked = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=True).stdout
        pack = subprocess.run(
            ["tar", "-C", ROOT, "--null", "--files-from=-", "-c"], input=tracked, capture_output=True, check=True
        )
        subprocess.run(["tar", "-C", source, "-x"], input=pack.stdout, check=True)
        for ignored in ("docs", "tests", "tools"):  # as .containerignore says
            assert ignored in (ROOT / ".containerignore").read_text().split()
            shutil.rmtree(source / ignored)
        assert build.all("COPY") == [". ."] and final.all("COPY") == ["--from=build /wheels /wheels"]
        for stage in (build, final):
            for arguments in stage.all("RUN"):
                root.run(root.placed(arguments), source)
        yield root
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
def test_the_steps_install_msim_for_the_user_of_the_image(built, image):
    final = image[1]
    (entry,) = final.command("ENTRYPOINT")
    version = built.start([entry, "--version"])
    assert version.communicate()[0].strip() == f"msim, version {msim_tf.__version__}" and version.returncode == 0
    assert built.start(final.command("HEALTHCHECK")).wait() != 0  # nothing serves
    # The model that ships is part of what was installed, and the library's place belongs to the user.
    assert list(
        (built.path / "opt/msim/lib").glob("python3.*/site-packages/msim_tf/saved_models/open6/*/saved_model.pb")
    )
    if built.switches:
        assert (built.path / "data").stat().st_uid == int(final.all("USER")[0].split(":")[0])
