"""``msim serve`` and ``msim predict``."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click
import numpy as np

from msim_tf.cli.options import LONGEST_WAIT, FiniteRange, LocalPath, import_tensorflow, precision_option, preset
from msim_tf.dimensions import DIMENSION_NAMES
from msim_tf.errors import InputError
from msim_tf.params import FEATURE_PRESETS, FeatureParams
from msim_tf.settings import default_library, default_model

if TYPE_CHECKING:
    from msim_tf.serving.server import Addresses

_PATH = LocalPath(path_type=Path)


@click.command(context_settings={"show_default": True})
@click.argument("models", type=_PATH, nargs=-1)
@click.option(
    "--host", default="127.0.0.1", help="Address to listen on; the default is not reachable from other machines."
)
@click.option("--grpc-port", type=click.IntRange(0, 65535), default=8500, help="0 takes any free port.")
@click.option("--rest-port", type=click.IntRange(0, 65535), default=8501, help="0 takes any free port.")
@click.option(
    "--poll-seconds", type=FiniteRange(0.05, LONGEST_WAIT), default=1.0, help="Time between looks for new versions."
)
@precision_option
@click.option("--library", type=_PATH, help="Library made by msim index: adds its search page and HTTP API.")
@click.option(
    "--subsonic",
    metavar="URL",
    help="Address of a Subsonic server; a proxy before it answers players' instant mix from the library.",
)
@click.option("--subsonic-port", type=click.IntRange(0, 65535), default=4534, help="Of the proxy, for players.")
@click.option(
    "--token",
    help="What every request must send (Authorization: Bearer TOKEN, by gRPC as metadata). With --library and a --host "
    "that other machines reach, one is made up if none is given.",
)
@click.option(
    "--max-request-mb",
    type=click.IntRange(min=1),
    help="Largest request in MiB, and a 16th of its bytes in values. By default from the models' signatures: 256 rows "
    "and 65,536 along other free axes of an input at 16 bytes per value, so 256 segments or 12.7 minutes of audio at "
    "22,050 Hz.",
    show_default=False,
)
@click.option(
    "--budget-mb",
    type=click.IntRange(min=1),
    help=(
        "MiB that all requests under way may hold; others are answered with 429. By default twice the largest request."
    ),
    show_default=False,
)
@click.option(
    "--max-connections",
    type=click.IntRange(min=1),
    default=512,
    help="Open connections of each API; fewer if ulimit -n is low.",
)
@click.option(
    "--root-path",
    default="",
    help="Path below which a proxy shows this server, e.g. /msim; requests may arrive with it or without.",
)
@click.option(
    "--monitoring",
    is_flag=True,
    help="Tell Prometheus of the models, as TensorFlow Serving does: at /monitoring/prometheus/metrics.",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Another site whose pages may use the library's API, e.g. https://music.example; repeatable.",
)
@click.option("--metrics", is_flag=True, help="Tell Prometheus of the library's API at /metrics.")
def serve(
    models: tuple[Path, ...],
    host: str,
    grpc_port: int,
    rest_port: int,
    poll_seconds: float,
    library: Path | None,
    subsonic: str | None,
    subsonic_port: int,
    token: str | None,
    max_request_mb: int | None,
    budget_mb: int | None,
    max_connections: int,
    root_path: str,
    monitoring: bool,
    cors_origins: tuple[str, ...],
    metrics: bool,
) -> None:
    """Serve exported MODELS (directories saved_models/NAME) as TensorFlow Serving does, until interrupted.

    The newest version below each is served, and replaced while running when a newer one appears. With --library the
    music can be searched by a web page and an HTTP API (/api/v1/openapi.json) on the REST port; uploads are
    embedded by the model that embedded the library.

    Without MODELS it serves the model of the library, and without --library, too, the default one of msim index.
    """
    models, library = _models_and_library(models, library)
    if (cors_origins or metrics) and not library:
        raise InputError("--cors-origin and --metrics are of a library's API; name one with --library")
    click.echo(
        f"starting with {', '.join(Path(os.path.realpath(path)).name for path in models)}, which takes some seconds"
    )
    import_tensorflow()
    from msim_tf.library.api import Access, library_site
    from msim_tf.serving import server
    from msim_tf.serving.guard import is_loopback

    if subsonic and not library:
        raise InputError("--subsonic answers from a library; name one with --library")
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*/?", root_path):
        raise InputError(f"--root-path {root_path!r}: expected letters, digits and -._~ between slashes, e.g. /msim")
    names = {Path(os.path.realpath(path)).name: path for path in models}
    if len(names) < len(models):
        raise InputError("two of these models have the same name; serve them from directories of different names")
    # Music that other machines can reach is never without a token.
    if library and not token and not is_loopback(host):
        token = secrets.token_urlsafe(16)
    options = server.ServerOptions(
        host=host,
        grpc_port=grpc_port,
        rest_port=rest_port,
        poll_seconds=poll_seconds,
        token=token or "",
        max_request_bytes=max_request_mb * 2**20 if max_request_mb else None,
        budget_bytes=budget_mb * 2**20 if budget_mb else None,
        max_connections=max_connections,
        root_path=root_path,
        monitoring=monitoring,
    )
    # The proxy for players has a port of its own, and ends with this server.
    access = Access(options.token, cors_origins, metrics)
    with _subsonic_proxy(subsonic, library, host, subsonic_port) as proxy:
        server.serve(
            names,
            options,
            site=library_site(library, access=access, root_path=root_path.rstrip("/")) if library else None,
            on_start=lambda addresses: _announce(addresses, list(names), library, options.token, proxy),
        )


def _models_and_library(models: tuple[Path, ...], library: Path | None) -> tuple[tuple[Path, ...], Path | None]:
    """What to serve: without models the library's own, and without a library, too, the default one if there is one."""
    from msim_tf.library.catalog import is_library, load_catalog

    if models:
        return models, library
    if library is None and is_library(default_library()):
        library = default_library()
    recorded = load_catalog(library).model if library else ""
    return (Path(recorded) if recorded else default_model(),), library


@contextmanager
def _subsonic_proxy(server: str | None, library: Path | None, host: str, port: int) -> Iterator[str]:
    """The address of a running proxy before ``server``; "" without one."""
    if server is None or library is None:
        yield ""
        return
    from msim_tf.library.api_state import LiveLibrary
    from msim_tf.library.recommender import LibraryRecommender
    from msim_tf.subsonic.server import running_proxy

    with running_proxy(server, LibraryRecommender(LiveLibrary(library)), host=host, port=port) as address:
        yield address


def _announce(addresses: Addresses, names: list[str], library: Path | None, token: str, proxy: str) -> None:
    """Prints where the server listens; the address of the page carries the token, so that it can be opened as it is."""
    click.echo(f"serving {', '.join(names)}: gRPC {addresses.grpc}, REST {addresses.rest} (stop with Ctrl-C)")
    if library:
        query = f"?token={quote(token, safe='')}" if token else ""
        click.echo(f"library {library}: {addresses.rest}/{query}")
    if proxy:
        click.echo(f"Subsonic players: {proxy}")


@click.command(context_settings={"show_default": True})
@click.argument("audio", type=_PATH)
@click.option("--model", required=True, help="Name of the served model.")
@click.option("--grpc", "grpc_address", help="HOST:PORT of the server's gRPC API, e.g. 127.0.0.1:8500.")
@click.option("--rest", "rest_url", help="URL of the server's REST API, e.g. http://127.0.0.1:8501.")
@click.option("--signature", "signatures", multiple=True, help="May be repeated; default every signature.")
@click.option(
    "--seconds",
    type=FiniteRange(0, LONGEST_WAIT, min_open=True),
    default=30.0,
    help="How much of AUDIO is sent, from its beginning.",
)
@click.option(
    "--features", default="paper", help="Preset of the model's features, to compute the segment that is sent."
)
@click.option("--token", default="", help="What the server asks for, if it has a token.")
@click.option(
    "--timeout",
    type=FiniteRange(0.1, LONGEST_WAIT),
    default=60.0,
    help="Seconds to wait for the server and for an answer.",
)
def predict(
    audio: Path,
    model: str,
    grpc_address: str | None,
    rest_url: str | None,
    signatures: tuple[str, ...],
    seconds: float,
    features: str,
    token: str,
    timeout: float,
) -> None:
    """Ask a running server, ours or TensorFlow Serving, about AUDIO: one line per signature.

    With both --grpc and --rest each is asked and the two answers are compared.
    """
    from msim_tf.serving.client import Client, GrpcClient
    from msim_tf.serving.rest_client import RestClient

    params = preset(FEATURE_PRESETS, features, "feature")
    clients: dict[str, Client] = {}
    if grpc_address:
        clients["gRPC"] = GrpcClient(grpc_address, token=token)
    if rest_url:
        clients["REST"] = RestClient(rest_url, token=token)
    if not clients:
        raise InputError("no server given; name it by --grpc HOST:PORT, --rest URL, or both")
    for client in clients.values():
        client.wait_until_ready(model, timeout)
    # TensorFlow has signatures of its own, which begin with two underscores.
    served = next(iter(clients.values())).metadata(model, timeout=timeout)
    available = sorted((name for name in served.signatures if not name.startswith("__")), key=_reading_order)
    unknown = [name for name in signatures if name not in available]
    if unknown:
        raise InputError(f"model {model} has no signature {', '.join(unknown)}; it has {', '.join(available)}")
    # One clip serves all signatures; each is sent the inputs that it names, by every client.
    import_tensorflow()
    inputs = _inputs(audio, params, seconds)
    click.echo(f"{model} version {served.version}, {audio.name}")
    for name in signatures or available:
        feeds = {argument: inputs[argument] for argument in served.signatures[name].inputs}
        answers = {
            api: client.predict(model, feeds, signature=name, timeout=timeout) for api, client in clients.items()
        }
        click.echo(f"  {name:<16}{_described(answers)}")


def _inputs(path: Path, params: FeatureParams, seconds: float) -> dict[str, np.ndarray]:
    """Arguments of every signature: the waveform, and the features of its middle segment."""
    from msim_tf.audio.decode import load_clip
    from msim_tf.features.extractor import Extractor
    from msim_tf.features.segments import segments_of

    y = load_clip(path, sr=params.sr, seconds=seconds)
    if len(y) < params.segment_samples:
        raise InputError(
            f"{path}: {len(y) / params.sr:.2f} s is shorter than one segment of {params.segment_seconds:.2f} s"
        )
    # Features of the whole clip first: a tempogram needs seconds of context around its segment.
    clip = Extractor(params)([y])
    middle = params.segments(clip.frames) // 2
    return {"audio": y[None], **segments_of(clip, range(middle, middle + 1), params)}


def _reading_order(name: str) -> int:
    """The whole first, then the dimensions in their order, then the rest."""
    order = ("serving_default", "embedding", *DIMENSION_NAMES, "all", "audio")
    return order.index(name) if name in order else len(order)


def _described(answers: dict[str, dict[str, np.ndarray]]) -> str:
    """Shapes and first values of the first answer, and how far the others are from it."""
    apis = list(answers)
    first = {name: answers[apis[0]][name] for name in sorted(answers[apis[0]], key=_reading_order)}
    shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in first.items())
    # The beginning of the first output, so that people see numbers.
    value = next(iter(first.values())).ravel()
    numbers = " ".join(f"{number:+.3f}" for number in value[:3])
    text = f"{apis[0]} {shapes}: {numbers} ..."
    for api in apis[1:]:
        gap = max(float(np.abs(answers[api][name] - value).max()) for name, value in first.items())
        text += f"; {api} differs by {gap:.0e}" if gap else f"; {api} the same"
    return text
