"""Options, variables, the configuration file and the defaults, in this order."""

from pathlib import Path

import platformdirs
import pytest

from msim_tf import settings
from msim_tf.errors import InputError
from msim_tf.export.metadata import load_metadata


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path):
    """An environment that names nothing, and folders of its own."""
    for name in ("MSIM_MODEL", "MSIM_LIBRARY", "MSIM_PRECISION", "MSIM_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(platformdirs, "user_config_path", lambda name: tmp_path / "config" / name)
    monkeypatch.setattr(platformdirs, "user_data_path", lambda name: tmp_path / "data" / name)


def config(tmp_path, text):
    file = tmp_path / "config" / "msim" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_the_package_carries_the_default_model():
    assert load_metadata(settings.default_model()).name == "open6"


def test_the_default_library_lies_in_the_folder_for_data(tmp_path):
    assert settings.default_library() == tmp_path / "data" / "msim" / "library"


def test_a_variable_wins_over_the_file_and_the_file_over_the_default(tmp_path, monkeypatch):
    config(tmp_path, 'model = "/models/mine"\nlibrary = "~/library"\n')
    assert settings.default_model() == Path("/models/mine")
    assert settings.default_library() == Path.home() / "library"
    monkeypatch.setenv("MSIM_LIBRARY", "~/other")
    assert settings.default_library() == Path.home() / "other"
    assert settings.default_model() == Path("/models/mine")


def test_precision_is_set_like_a_path(tmp_path, monkeypatch):
    assert settings.default_precision() == "float32"
    config(tmp_path, 'precision = "bfloat16"')
    assert settings.default_precision() == "bfloat16"
    monkeypatch.setenv("MSIM_PRECISION", "float32")
    assert settings.default_precision() == "float32"
    monkeypatch.setenv("MSIM_PRECISION", "half")
    with pytest.raises(InputError, match="MSIM_PRECISION: 'half': expected float32 or bfloat16"):
        settings.default_precision()


def test_a_relative_path_in_the_file_starts_at_the_file(tmp_path):
    file = config(tmp_path, 'library = "mine/library"')
    assert settings.default_library() == file.parent / "mine" / "library"


def test_a_file_can_be_named(tmp_path, monkeypatch):
    file = tmp_path / "elsewhere.toml"
    file.write_text('library = "/srv/library"')
    monkeypatch.setenv("MSIM_CONFIG", str(file))
    assert settings.default_library() == Path("/srv/library")
    file.unlink()
    with pytest.raises(InputError, match="elsewhere.toml: not found"):
        settings.default_library()


@pytest.mark.parametrize(
    "text, reason",
    [
        ("library = ", "not TOML"),
        ("library = " + "[" * 5000, "not TOML"),
        ("library = '~nobody-of-this-name/music'", "nobody of this name has a home"),
        (b"library = '\xff'", "not TOML"),
        ("library = 3", "library = 3: expected a path"),
        ("libary = '/srv'", "libary = '/srv': expected a path for one of model, library"),
        ("precision = 'float16'", "precision: 'float16': expected float32 or bfloat16"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, text, reason):
    file = config(tmp_path, text)
    with pytest.raises(InputError) as caught:
        settings.default_library()
    assert str(caught.value).startswith(f"{file}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    config(tmp_path, "").unlink()
    (tmp_path / "config" / "msim" / "config.toml").mkdir()
    with pytest.raises(InputError, match="config.toml: cannot be read"):
        settings.default_library()
