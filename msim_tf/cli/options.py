"""What several commands share: options made from dataclass fields, progress bars, weights."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from msim_tf.audio.source import is_uri
from msim_tf.errors import InputError
from msim_tf.names import printable as printable  # what commands share, they take from here
from msim_tf.precision import PRECISIONS
from msim_tf.search.profiles import PROFILES
from msim_tf.settings import PRECISION_VARIABLE
from msim_tf.startup import import_tensorflow as import_tensorflow


class LocalPath(click.Path):
    """A path of this machine or of a file system that it shares; an URI is refused in one line."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value as ``pathlib.Path``."""
        if is_uri(value):
            raise InputError(
                f"{value}: stores, libraries and models need a local or shared file system; only the SOURCE of msim "
                "extract and msim embed may be an URI"
            )
        return super().convert(value, param, ctx)


class SourcePath(click.Path):
    """A path, or the URI of sound files, which stays text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value as ``pathlib.Path``, or as it is."""
        return value if is_uri(value) else super().convert(value, param, ctx)


def absolute(source: Any) -> str:
    """A source as a process in another directory names it."""
    return source if is_uri(source) else str(source.absolute())


class FiniteRange(click.FloatRange):
    """A number within limits. NaN, which passes every comparison with a limit, and infinity are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The value as a number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


LONGEST_WAIT = 86_400.0  # seconds; a day, which every timer and sample counter can hold
_SHOWN = 10
_FILTERS = (
    click.option("--bpm", help="LOWEST-HIGHEST tempo, e.g. 118-124."),
    click.option("--octaves", is_flag=True, help="With --bpm: tempi doubled or halved pass too."),
    click.option("--year", help="FIRST-LAST year, e.g. 1970-1979."),
    click.option("--key", "keys", multiple=True, help="E.g. 'A minor'; any of them."),
    click.option("--tag", "tags", multiple=True, help="All of them, whatever their dimension."),
    click.option("--artist", "artists", multiple=True, help="Any of them."),
)

profile_option = click.option(
    "--profile",
    help=f"Weights by name ({', '.join(profile.name for profile in PROFILES)}), or a file that msim learn made.",
)


def _set_precision(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Sets the variable until the command ends, so that processes which it starts compute likewise."""
    if value is None:
        return
    before = os.environ.get(PRECISION_VARIABLE, "")
    os.environ[PRECISION_VARIABLE] = value
    ctx.call_on_close(lambda: os.environ.update({PRECISION_VARIABLE: before}))


precision_option = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    callback=_set_precision,
    expose_value=False,
    help="In which the model computes; bfloat16 only where the processor has instructions for it. By default as the "
    "settings say, which is float32.",
)


def filter_options(function: Callable) -> Callable:
    """The options that ``library_query.chosen_filters`` reads."""
    for option in reversed(_FILTERS):
        function = option(function)
    return function


def field_options(cls: type, names: dict[str, str]) -> Callable[[Callable], Callable]:
    """Options for fields of a dataclass; an option that is not given is None, so that a preset can decide.

    Args:
        cls: the dataclass.
        names: field -> help text.
    """
    # The fields' types as text, since annotations are not evaluated.
    types = {field.name: field.type for field in dataclasses.fields(cls)}
    kinds: dict[Any, Any] = {"int": int, "float": float, "str": str}

    def decorate(function: Callable) -> Callable:
        for name, text in reversed(names.items()):
            flag = "--" + name.replace("_", "-")
            if types[name] == "bool":
                option = click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=text)
            else:
                option = click.option(flag, name, type=kinds[types[name]], default=None, help=text)
            function = option(function)
        return function

    return decorate


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in values.items() if value is not None}


def preset(presets: dict[str, Any], name: str, what: str) -> Any:
    """A preset by name.

    Raises:
        InputError: naming the presets that there are.
    """
    if name not in presets:
        raise InputError(f"no {what} preset {name!r}; there are {', '.join(presets)}")
    return presets[name]


def list_failures(failures: dict[str, str]) -> None:
    """The first files that were left out, with the reason, on standard error."""
    for identifier, reason in list(failures.items())[:_SHOWN]:
        click.echo(f"  left out: {printable(identifier)}: {printable(reason)}", err=True)
    if len(failures) > _SHOWN:
        click.echo(f"  left out: {len(failures) - _SHOWN} more", err=True)


def list_notes(notes: dict[str, str]) -> None:
    """How many files were used although something is wrong with them, and the first of them, on standard error."""
    if notes:
        click.echo(f"  used with a note: {len(notes)}", err=True)
    for identifier, note in list(notes.items())[:_SHOWN]:
        click.echo(f"    {printable(identifier)}: {printable(note)}", err=True)
    if len(notes) > _SHOWN:
        click.echo(f"    and {len(notes) - _SHOWN} more", err=True)


@contextlib.contextmanager
def progress_bar(what: str, unit: str = "track", *, disable: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Yields a function to be called with (done, total); draws on standard error, with rate and remaining time."""
    from tqdm import tqdm

    with tqdm(desc=what, unit=unit, dynamic_ncols=True, file=sys.stderr, mininterval=0.2, disable=disable) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report


def parse_weights(texts: tuple[str, ...]) -> dict[str, float]:
    """``("mood=1", "tempo=0.5,key=2")`` as a dict.

    Raises:
        InputError: for another form.
    """
    weights = {}
    for text in ",".join(texts).split(",") if texts else ():
        name, _, value = text.partition("=")
        try:
            weights[name.strip()] = float(value)
        except ValueError:
            raise InputError(f"weight {text!r}: expected DIMENSION=NUMBER, for example mood=1") from None
    return weights
