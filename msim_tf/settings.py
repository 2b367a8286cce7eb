"""Where msim finds its model and its library, and how it computes, when nobody says so.

A setting comes from the first of these that has it:

1. the option or argument of the command;
2. an environment variable, ``MSIM_MODEL``, ``MSIM_LIBRARY`` or ``MSIM_PRECISION``;
3. the configuration file, ``config.toml`` in the platform's folder for settings (``~/.config/msim`` on Linux) or the
   file that ``MSIM_CONFIG`` names::

       model = "~/models/mine"
       library = "/srv/music/library"
       precision = "bfloat16"

4. the default: the model that the package carries, ``library`` in the platform's folder for data
   (``~/.local/share/msim`` on Linux), and float32.

The precision is that of every model which embeds, describes or is served (``msim_tf.precision``). bfloat16 is for
processors with instructions for it (avx512_bf16 or amx_bf16; the fourth generation of Intel Xeon, AMD Zen 4); on others
msim says so and computes in float32. It changes ranks a little: see "Sixteen bits" in ``docs/benchmarks.md``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import platformdirs

from msim_tf.errors import InputError
from msim_tf.precision import validate_precision

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED_MODEL = Path(__file__).parent / "saved_models" / "open6"
_PATHS = ("model", "library")
SETTINGS = (*_PATHS, "precision")
PRECISION_VARIABLE = "MSIM_PRECISION"
_APPLICATION = "msim"


def default_model() -> Path:
    """The model to use where none is named: a directory like ``saved_models/NAME``.

    Raises:
        InputError: if the configuration file cannot be used.
    """
    return _configured("model") or SHIPPED_MODEL


def default_library() -> Path:
    """The library to use where none is named; it need not exist yet.

    Raises:
        InputError: if the configuration file cannot be used.
    """
    return _configured("library") or platformdirs.user_data_path(_APPLICATION) / "library"


def default_precision() -> str:
    """One of ``msim_tf.precision.PRECISIONS``, in which models compute where none is named.

    Raises:
        InputError: if the configuration file cannot be used, or there is no such precision.
    """
    name = os.environ.get(PRECISION_VARIABLE)
    if name:
        return validate_precision(name, PRECISION_VARIABLE)
    return _file_settings(config_file()).get("precision", "float32")


def config_file() -> Path:
    """The configuration file; it need not exist."""
    path = os.environ.get("MSIM_CONFIG")
    return _expanded(path, "MSIM_CONFIG") if path else platformdirs.user_config_path(_APPLICATION) / "config.toml"


def _configured(name: str) -> Path | None:
    """A path from the environment or, relative to its folder, from the configuration file."""
    variable = f"MSIM_{name.upper()}"
    path = os.environ.get(variable)
    if path:
        return _expanded(path, variable)
    path = _file_settings(config_file()).get(name)
    return config_file().parent / _expanded(path, config_file()) if path else None


def _expanded(path: str, where: str | Path) -> Path:
    """A path whose ``~`` is the home of a user; ``where`` it is written, for the error text.

    Raises:
        InputError: if there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{where}: {path}: nobody of this name has a home; write the whole path") from None


def _file_settings(file: Path) -> dict[str, str]:
    """The settings in a configuration file; none if a file at the default place is not there."""
    try:
        settings: dict[str, str] = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if "MSIM_CONFIG" in os.environ:
            raise InputError(f"{file}: not found; MSIM_CONFIG names it") from None
        return {}
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # neither UTF-8 nor TOML, or without an end
        raise InputError(f'{file}: not TOML ({error}); expected lines like library = "/srv/music/library"') from error
    for name, value in settings.items():
        if name not in SETTINGS or not isinstance(value, str):
            raise InputError(
                f"{file}: {name} = {value!r}: expected a path for one of {', '.join(_PATHS)}, or a precision"
            )
        if name == "precision":
            validate_precision(value, f"{file}: {name}")
    return settings
