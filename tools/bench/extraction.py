"""Extraction against librosa, on one core: features from waveforms, and from stereo
files at 44.1 kHz to the store on disk.

Peers: librosa at the same settings, a call per feature as its documentation has them ("matched"); the same written as
well as its functions allow, one STFT for all ("one STFT"); and librosa's default calls. Limit: decoding alone. What is
compared in speed is compared in values in the same run.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

from tools.bench import clips, frame


def run(options: frame.Options) -> list[frame.Figure]:
    """The section."""
    figures = frame.in_pinned_process(1, _on_one_core, options)
    if len(os.sched_getaffinity(0)) > 1:
        figures += _scaling(options)
    return figures


def _on_one_core(options: frame.Options) -> list[frame.Figure]:
    from msim_tf.audio.decode import load_clip, read_blocks
    from msim_tf.cli.options import import_tensorflow

    import_tensorflow()
    from msim_tf.data.writer import extract_folder
    from msim_tf.features.extractor import Extractor
    from msim_tf.params import FEATURE_PRESETS

    params = FEATURE_PRESETS["paper"]
    count, rounds = (4, 3) if options.quick else (12, 7)
    waves = [load_clip(path, sr=params.sr) for path in clips.sound_files(options.music, count)]
    extractor = Extractor(params)
    seconds = frame.measure(
        {
            "ours": lambda: [extractor([y]) for y in waves],
            "ours and tempogram": lambda: [_all_three(extractor, y) for y in waves],
            "matched": lambda: [librosa_matched(y, params) for y in waves],
            "one STFT": lambda: [librosa_one_stft(y, params) for y in waves],
            "default": lambda: [librosa_default(y, params.sr) for y in waves],
        },
        rounds,
    )
    ours, audio = seconds["ours"], sum(len(y) for y in waves) / params.sr
    figures = [
        *_parity(extractor, waves),
        frame.ratio(
            "stored features / matched librosa", seconds["matched"], ours, bar=6, note="librosa: all three inputs"
        ),
        frame.ratio(
            "stored features / librosa, one STFT", seconds["one STFT"], ours, bar=6, note="as few calls as it can"
        ),
        frame.ratio("stored features / default librosa", seconds["default"], ours, bar=24),
        frame.ratio("with tempogram / matched librosa", seconds["matched"], seconds["ours and tempogram"]),
        frame.rate("stored features", ours, audio, "s/s", note="seconds of audio per second and core"),
    ]

    folder, out = Path(options.scratch) / "stereo", Path(options.scratch) / "out"
    paths = clips.make_stereo_files(options.music, count, folder)
    out.mkdir()
    stores = iter(range(10**6))
    end = frame.measure(
        {
            "ours": lambda: _our_shard(paths, out, next(stores), extractor),
            "folder": lambda: extract_folder(folder, out / f"store{next(stores)}", params, workers=1),
            "decode": lambda: [sum(len(block) for block in read_blocks(path, sr=params.sr)) for path in paths],
            "matched": lambda: [_librosa_file(path, out, lambda y: librosa_matched(y, params)) for path in paths],
            "one STFT": lambda: [_librosa_file(path, out, lambda y: librosa_one_stft(y, params)) for path in paths],
            "default": lambda: [_librosa_file(path, out, lambda y: librosa_default(y, params.sr)) for path in paths],
        },
        rounds,
    )
    start = [folder - ours for folder, ours in zip(end["folder"], end["ours"])]
    return figures + [
        frame.ratio(
            "file to disk / matched librosa", end["matched"], end["ours"], bar=2, note="mp3 and ogg, 44.1 kHz stereo"
        ),
        frame.ratio(
            "file to disk / librosa, one STFT", end["one STFT"], end["ours"], bar=2, note="as few calls as it can"
        ),
        frame.ratio("file to disk / default librosa", end["default"], end["ours"], bar=5),
        frame.ratio("file to disk / decoding alone", end["ours"], end["decode"], note="the floor: 1"),
        frame.ratio(
            "decoding alone / matched librosa",
            end["matched"],
            end["decode"],
            note="the most that file to disk could reach",
        ),
        frame.ratio("decoding alone / default librosa", end["default"], end["decode"], note="likewise"),
        frame.rate("file to disk", end["ours"], audio, "s/s", note="seconds of audio per second and core"),
        frame.ratio(
            "extract_folder / matched librosa", end["matched"], end["folder"], note=f"{count} files, with its start"
        ),
        frame.spread(
            "start of extract_folder", start, unit="s", note="once per run: tracing, manifest, flushing to disk"
        ),
    ]


def _all_three(extractor: Any, y: Any) -> Any:
    import tensorflow as tf

    from msim_tf.features.tempogram import tempogram

    features, lags = extractor([y]), extractor.params.tempogram_lags
    return features, tempogram(tf.constant(features.onset[:-1]), lags=lags).numpy()


def _parity(extractor: Any, waves: list[Any]) -> list[frame.Figure]:
    """Largest absolute difference to librosa at equal settings, of each clip."""
    import numpy as np

    differences: dict[str, list[float]] = {"mel": [], "tempogram": [], "cens": []}
    for y in waves:
        features, tempogram = _all_three(extractor, y)
        ours = {"mel": features.mel, "tempogram": tempogram, "cens": features.cens}
        for name, value in librosa_matched(y, extractor.params).items():
            differences[name].append(float(np.abs(ours[name] - value).max()))
    return [
        frame.Figure(
            f"parity of {name}",
            max(values),
            min(values),
            max(values),
            unit="abs",
            bar=5e-6,
            at_most=True,
            note="largest difference; least and greatest by clip",
        )
        for name, values in differences.items()
    ]


def librosa_matched(y: Any, params: Any) -> dict[str, Any]:
    """librosa's features at our settings, a call for each."""
    import librosa

    sr, frames = params.sr, {"n_fft": params.n_fft, "hop_length": params.hop_length}
    mel = librosa.feature.melspectrogram(y=y, sr=sr, n_mels=params.n_mels, power=1.0, **frames)
    onset = librosa.onset.onset_strength(y=y, sr=sr, n_mels=params.n_mels, **frames)
    chroma = librosa.feature.chroma_stft(y=y, sr=sr, tuning=0.0, **frames)
    return _librosa_inputs(y, mel, onset, chroma, params)


def librosa_one_stft(y: Any, params: Any) -> dict[str, Any]:
    """The same numbers from one STFT, and mel filters that are made once."""
    import librosa
    import numpy as np

    sr, n_fft, hop = params.sr, params.n_fft, params.hop_length
    magnitude = np.abs(librosa.stft(y, n_fft=n_fft, hop_length=hop))
    power = magnitude**2
    basis = _mel_basis(sr, n_fft, params.n_mels)
    db = librosa.power_to_db(basis @ power)
    onset = librosa.onset.onset_strength(S=db, sr=sr, n_fft=n_fft, hop_length=hop)
    chroma = librosa.feature.chroma_stft(S=power, sr=sr, n_fft=n_fft, tuning=0.0)
    return _librosa_inputs(y, basis @ magnitude, onset, chroma, params)


def _librosa_inputs(y: Any, mel: Any, onset: Any, chroma: Any, params: Any) -> dict[str, Any]:
    """The three inputs from what frames gave."""
    import librosa
    import numpy as np

    # CENS over a given chroma has no argument.
    with mock.patch("librosa.feature.spectral.chroma_cqt", return_value=chroma):
        cens = librosa.feature.chroma_cens(y=y, sr=params.sr)
    return {
        "mel": np.log10(1 + params.mel_gain * mel),
        "tempogram": librosa.feature.tempogram(onset_envelope=onset, sr=params.sr, win_length=params.tempogram_lags),
        "cens": cens,
    }


@functools.cache
def _mel_basis(sr: int, n_fft: int, n_mels: int) -> Any:
    """Made once, as ours is: librosa would make it for every clip."""
    import librosa

    return librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n_mels)


def librosa_default(y: Any, sr: int) -> dict[str, Any]:
    """The three features as the documentation calls them."""
    import librosa

    return {
        "mel": librosa.feature.melspectrogram(y=y, sr=sr),
        "tempogram": librosa.feature.tempogram(y=y, sr=sr),
        "cens": librosa.feature.chroma_cens(y=y, sr=sr),
    }


def _our_shard(paths: list[Path], out: Path, shard: int, extractor: Any) -> None:
    """What ``extract_folder`` does with files, without its start: features, and a shard of the store."""
    from msim_tf.data.shards import ShardClip, ShardWriter
    from msim_tf.features.from_file import features_or_reason

    with contextlib.closing(ShardWriter(out, shard, extractor.params)) as writer:
        for path in paths:
            outcome = features_or_reason(path, extractor, pad=False)
            assert not isinstance(outcome, str), outcome
            writer.add(ShardClip(path.name, 0, 0), outcome)
        writer.publish()


def _librosa_file(path: Path, out: Path, features: Callable[[Any], dict[str, Any]]) -> Path:
    import librosa

    y, _ = librosa.load(path)
    return _save(out / path.stem, features(y))


def _save(path: Path, arrays: dict[str, Any]) -> Path:
    """float16 on disk."""
    import numpy as np

    halves: dict[str, Any] = {name: value.astype(np.float16) for name, value in arrays.items()}
    np.savez(path, **halves)
    return path


def _extract(music: str, store: str, workers: int) -> None:
    from msim_tf.cli.options import import_tensorflow

    import_tensorflow()
    from msim_tf.data.writer import extract_folder
    from msim_tf.params import FEATURE_PRESETS

    extract_folder(music, store, FEATURE_PRESETS["paper"], workers=workers)


def _features_of(paths: list[Path], workers: int) -> None:
    """What ``extract_folder`` does for each file, without its start."""
    from msim_tf.features.from_file import features_or_reason
    from msim_tf.parallel import in_order

    extractor = _extractor()
    for _ in in_order(lambda path: features_or_reason(path, extractor, pad=False), paths, workers):
        pass


@functools.cache
def _extractor() -> Any:
    from msim_tf.cli.options import import_tensorflow

    import_tensorflow()
    from msim_tf.features.extractor import Extractor
    from msim_tf.params import FEATURE_PRESETS

    return Extractor(FEATURE_PRESETS["paper"])


def _scaling(options: frame.Options) -> list[frame.Figure]:
    """The same files by one worker on one core, and by two on two; with the start of a run, and as it goes on."""
    folder, scratch = Path(options.scratch) / "scaling", Path(options.scratch)
    paths = clips.make_stereo_files(options.music, 8 if options.quick else 24, folder)
    stores = iter(range(10**6))
    with frame.pinned_process(1) as one, frame.pinned_process(2) as two:

        def extract(process: ProcessPoolExecutor, workers: int) -> None:
            process.submit(_extract, str(folder), str(scratch / f"scaled{next(stores)}"), workers).result()

        alternatives: dict[str, Callable[[], object]] = {
            "1": lambda: extract(one, 1),
            "2": lambda: extract(two, 2),
            "1 going": lambda: one.submit(_features_of, paths, 1).result(),
            "2 going": lambda: two.submit(_features_of, paths, 2).result(),
        }
        seconds = frame.measure(alternatives, 3 if options.quick else 7)
    return [
        frame.ratio(
            "features of files, 2 cores / 1 core",
            seconds["1 going"],
            seconds["2 going"],
            note="the limit: 2; without start",
        ),
        frame.ratio(
            "file to store, 2 cores / 1 core",
            seconds["1"],
            seconds["2"],
            note=f"{len(paths)} files, with start, which is serial",
        ),
    ]
