"""A genuine Spark standalone cluster on loopback, from the PySpark wheel: a master and two workers of one core each."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
# msim's own command line, with small features and two files to a job, so that a few files are several jobs.
MSIM = """
import sys
from synthetic import SMALL
from msim_tf.data import extraction_plan
from msim_tf.export import embedding, embedding_parts
from msim_tf.params import FEATURE_PRESETS

extraction_plan.CLIPS_PER_SHARD = embedding_parts.TRACKS_PER_JOB = 2
FEATURE_PRESETS["small"] = SMALL
from msim_tf.cli import main
main(sys.argv[1:])
"""


def missing() -> str:
    """Why there can be no cluster here; "" if there can."""
    if not shutil.which("java"):
        return "no Java (Debian: default-jre-headless)"
    try:
        import pyspark  # noqa: F401
    except ModuleNotFoundError:
        return "no PySpark"
    return ""


class SparkCluster:
    """The processes of a cluster.

    Args:
        directory: for their files; a ``sitecustomize.py`` in it runs in every Python process of the cluster.
    """

    def __init__(self, directory: Path) -> None:
        import pyspark

        home = Path(pyspark.__file__).parent
        self.environment = {
            **os.environ,
            "SPARK_HOME": str(home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_WORKER_DIR": str(directory / "work"),
            "SPARK_DAEMON_MEMORY": "256m",
            "PYSPARK_PYTHON": sys.executable,
            "PYTHONPATH": os.pathsep.join([str(directory), str(ROOT), str(ROOT / "tests")]),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self._directory, self._program = directory, str(home / "bin" / "spark-class")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.master = f"spark://127.0.0.1:{port}"
        self._processes = [self._start("master", "Master", "--port", str(port))]
        self._await("master", "New state: ALIVE")
        self.workers: list[subprocess.Popen] = []
        for name in ("worker0", "worker1"):
            self.start_worker(name)

    def start_worker(self, name: str) -> None:
        """Adds a worker, and waits until the master knows it."""
        self.workers.append(self._start(name, "Worker", "--cores", "1", "--memory", "1g", self.master))
        self._await(name, "Successfully registered")

    def _start(self, name: str, role: str, *arguments: str) -> subprocess.Popen:
        module = f"org.apache.spark.deploy.{role.lower()}.{role}"
        command = [self._program, module, "--host", "127.0.0.1", "--webui-port", "0", *arguments]
        with open(self._log(name), "wb") as log:
            # A session of its own, so that a worker dies with all that it started.
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def _await(self, name: str, text: str) -> None:
        deadline = time.monotonic() + 120
        while not re.search(text, self._log(name).read_text(errors="replace")):
            if time.monotonic() > deadline:
                raise RuntimeError(self._log(name).read_text(errors="replace"))
            time.sleep(0.2)

    def kill_worker(self, number: int) -> None:
        """Ends a worker and its executors at once, as a machine that loses power does."""
        os.killpg(self.workers[number].pid, signal.SIGKILL)

    def driver(self, *arguments: object) -> subprocess.Popen:
        """``msim`` with these arguments, on this cluster."""
        command = [sys.executable, "-c", MSIM, *map(str, arguments), "--engine", "spark", "--master", self.master]
        command += ["--option", "spark.executor.memory=512m", "--option", "spark.driver.host=127.0.0.1"]
        command += ["--option", "spark.ui.enabled=false"]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def close(self) -> None:
        """Ends all of it."""
        for process in [*self.workers, *self._processes]:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            process.wait()
