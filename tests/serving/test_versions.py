"""The state machine behind hot reload, with models that are plain objects; the oracle is the
table of the real server's behaviour.
"""

import threading

import pytest

from msim_tf.export.metadata import version_directories
from msim_tf.export.status import ServingError
from msim_tf.serving.versions import Models, Poller, ServedModel


class Fake:
    """A model that knows whether it is closed, and writes down what happens."""

    def __init__(self, name, log):
        self.name, self.log, self.closed = name, log, False
        log.append(f"load {name}")

    def close(self):
        self.closed = True
        self.log.append(f"close {self.name}")


class Site:
    """A base path whose versions fail to load while they hold a file "broken"."""

    def __init__(self, path, **options):
        self.path, self.log, self.attempts = path, [], 0
        self.model = ServedModel("m", path, self.load, **{"retry_seconds": 0.0, "max_load_retries": 2, **options})

    def load(self, path):
        self.attempts += 1
        if (path / "broken").exists():
            raise ServingError("DATA_LOSS", "half a model")
        return Fake(path.name, self.log)

    def add(self, version, *, broken=False):
        (self.path / version).mkdir()
        if broken:
            (self.path / version / "broken").touch()

    def remove(self, version):
        for file in (self.path / version).iterdir():
            file.unlink()
        (self.path / version).rmdir()

    def poll(self):
        """One look; returns the served version and the states, newest first."""
        self.model.poll()
        return self.served(), {status.version: status.state for status in self.model.statuses()}

    def served(self):
        try:
            with self.model.lease() as (version, servable):
                assert not servable.closed
                return version
        except ServingError as error:
            assert error.code == "NOT_FOUND"
            return None


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def test_version_directories_are_whole_numbers(tmp_path):
    for name in ["1", "0005", "10", "-3", "1.5", "x", ".tmp-7", str(2**63), "²"]:
        (tmp_path / name).mkdir()
    (tmp_path / "11").touch()
    assert {version: path.name for version, path in version_directories(tmp_path).items()} == {
        1: "1",
        5: "0005",
        10: "10",
    }


def test_the_highest_number_is_served_not_the_last_name(site):
    for version in ["9", "10", "2"]:
        site.add(version)
    assert site.poll() == (10, {10: "AVAILABLE"})


def test_a_new_version_is_loaded_before_the_old_is_unloaded(site):
    site.add("1")
    site.poll()
    site.add("2")
    assert site.poll() == (2, {2: "AVAILABLE", 1: "END"})
    assert site.log == ["load 1", "load 2", "close 1"]


def test_deleting_falls_back_and_deleting_all_unloads(site):
    site.add("1")
    site.add("2")
    site.poll()
    site.remove("2")
    assert site.poll() == (1, {2: "END", 1: "AVAILABLE"})
    site.remove("1")
    assert site.poll() == (None, {2: "END", 1: "END"})
    assert site.log == ["load 2", "load 1", "close 2", "close 1"]
    site.add("2")
    assert site.poll() == (2, {2: "AVAILABLE", 1: "END"})


def test_a_broken_version_is_loading_then_end_and_the_old_serves(site):
    site.add("1")
    site.poll()
    site.add("2", broken=True)
    for _ in range(2):
        assert site.poll() == (1, {2: "LOADING", 1: "AVAILABLE"})
    assert site.poll() == (1, {2: "END", 1: "AVAILABLE"})
    status = site.model.statuses(2)[0]
    assert (status.code, status.message) == ("DATA_LOSS", "half a model")
    attempts = site.attempts
    site.poll()
    assert site.attempts == attempts == 4, "one for version 1, three for version 2, none after it was given up"


def test_a_broken_version_waits_for_its_next_attempt_but_not_when_its_files_change(tmp_path):
    site = Site(tmp_path, retry_seconds=3600.0)
    site.add("1")
    site.add("2", broken=True)
    assert site.poll() == (1, {2: "LOADING", 1: "AVAILABLE"})
    attempts = site.attempts
    assert site.poll()[0] == 1 and site.attempts == attempts
    (tmp_path / "2" / "broken").unlink()
    assert site.poll() == (2, {2: "AVAILABLE", 1: "END"})


def test_a_newer_version_overtakes_a_broken_one(tmp_path):
    site = Site(tmp_path, retry_seconds=3600.0)
    site.add("1")
    site.poll()
    site.add("2", broken=True)
    site.poll()
    site.add("3")
    assert site.poll()[0] == 3


def test_a_broken_version_that_is_deleted_is_forgotten(site):
    site.add("1")
    site.add("2", broken=True)
    site.poll()
    site.remove("2")
    assert site.poll() == (1, {2: "END", 1: "AVAILABLE"})
    assert site.model.failures() == {}
    # Its status keeps the reason, as in the real server.
    status = site.model.statuses(2)[0]
    assert (status.code, status.message) == ("DATA_LOSS", "half a model")


def test_a_version_starts_before_it_is_loaded(site):
    states = []
    load = site.model._load
    site.model._load = lambda path: (states.append(site.model.statuses(1)[0].state), load(path))[1]
    original = site.model._set
    site.model._set = lambda status: (states.append(status.state), original(status))
    site.add("1")
    site.poll()
    assert states == ["START", "LOADING", "LOADING"]


def test_the_served_version_deleted_beside_a_broken_one_falls_back(site):
    site.add("1")
    site.add("2")
    site.poll()
    site.add("3", broken=True)
    site.poll()
    site.remove("2")
    assert site.poll()[0] == 1


def test_storage_that_is_gone_for_a_while_keeps_the_model(site, tmp_path):
    site.add("1")
    site.poll()
    tmp_path.rename(tmp_path.with_name("away"))
    assert site.poll() == (1, {1: "AVAILABLE"})
    tmp_path.with_name("away").rename(tmp_path)


def test_a_leased_model_is_closed_by_the_last_user(site):
    site.add("1")
    site.poll()
    with site.model.lease() as (_, first), site.model.lease():
        site.add("2")
        assert site.poll() == (2, {2: "AVAILABLE", 1: "UNLOADING"})
        assert not first.closed
    assert first.closed
    assert [status.state for status in site.model.statuses()] == ["AVAILABLE", "END"]


def test_a_request_that_fails_gives_its_lease_back(site):
    site.add("1")
    site.poll()
    with pytest.raises(ZeroDivisionError):
        with site.model.lease() as (_, servable):
            raise ZeroDivisionError
    site.model.close()
    assert servable.closed


@pytest.mark.parametrize(
    ("which", "code", "message"),
    [
        ({"name": "none"}, "NOT_FOUND", "Servable not found for request: Latest(none)"),
        ({"name": "none", "version": 3}, "NOT_FOUND", "Servable not found for request: Specific(none, 3)"),
        ({"name": "m", "version": 9}, "NOT_FOUND", "Servable not found for request: Specific(m, 9)"),
        ({"name": "m", "label": "old"}, "NOT_FOUND", "Servable not found for request: Specific(m, 1)"),
        ({"name": "m", "label": "none"}, "INVALID_ARGUMENT", "Unrecognized servable version label: none"),
        ({"name": "none", "label": "none"}, "INVALID_ARGUMENT", "Unrecognized servable version label: none"),
    ],
)
def test_what_is_not_served_reads_as_in_the_real_server(tmp_path, which, code, message):
    site = Site(tmp_path, labels={"stable": 2, "old": 1})
    site.add("2")
    site.poll()
    models = Models({"m": site.model})
    with models.lease("m", label="stable") as (version, _):
        assert version == 2
    with pytest.raises(ServingError) as caught, models.lease(**which):
        pass
    assert (caught.value.code, caught.value.message) == (code, message)


def test_unknown_models_and_versions_have_no_status(site):
    site.add("2")
    site.poll()
    models = Models({"m": site.model})
    for arguments, message in [
        (("none",), "Could not find any versions of model none"),
        (("none", 1), "Could not find version 1 of model none"),
        (("m", 9), "Could not find version 9 of model m"),
    ]:
        with pytest.raises(ServingError, match=f"NOT_FOUND: {message}"):
            models.statuses(*arguments)


def test_the_poller_follows_changes_until_it_is_stopped(site):
    loaded = threading.Event()
    load = site.load
    site.model._load = lambda path: (load(path), loaded.set())[0]
    poller = Poller(Models({"m": site.model}), 0.01)
    poller.start()
    site.add("1")
    assert loaded.wait(30)
    poller.stop()
    site.add("2")
    assert site.served() in (1, None) and site.log == ["load 1"]
