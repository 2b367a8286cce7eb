"""A genuine Spark standalone cluster on loopback, from the PySpark wheel: a master and two workers of one core each."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


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
        program: what drives it, msim's own command line by default.
        modules: folders that its Python processes import from besides this checkout.
        worker_memory: of each worker, e.g. "1g".
    """

    def __init__(
        self,
        directory: Path,
        *,
        program: Sequence[str] = (sys.executable, "-m", "msim_tf"),
        modules: Sequence[Path] = (),
        worker_memory: str = "1g",
    ) -> None:
        import pyspark

        home = Path(pyspark.__file__).parent
        self.environment = {
            **os.environ,
            "SPARK_HOME": str(home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_WORKER_DIR": str(directory / "work"),
            "SPARK_DAEMON_MEMORY": "256m",
            "PYSPARK_PYTHON": sys.executable,
            "PYTHONPATH": os.pathsep.join(map(str, [directory, ROOT, *modules])),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self._directory, self._driver, self._worker_memory = directory, program, worker_memory
        self._spark_class = str(home / "bin" / "spark-class")
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
        self.workers.append(self._start(name, "Worker", "--cores", "1", "--memory", self._worker_memory, self.master))
        self._await(name, "Successfully registered")

    def _start(self, name: str, role: str, *arguments: str) -> subprocess.Popen:
        module = f"org.apache.spark.deploy.{role.lower()}.{role}"
        command = [self._spark_class, module, "--host", "127.0.0.1", "--webui-port", "0", *arguments]
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

    @property
    def sessions(self) -> list[int]:
        """The session of every process that was started; what these started in turn is in the same ones."""
        return [process.pid for process in (*self._processes, *self.workers)]

    def driver(self, *arguments: object) -> subprocess.Popen:
        """The program with these arguments, on this cluster."""
        command = [*self._driver, *map(str, arguments), "--engine", "spark", "--master", self.master]
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
