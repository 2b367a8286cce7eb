"""The sound files that benchmarks hear: real excerpts, and stereo mp3 and ogg files at 44.1 kHz made of them, as short
as an excerpt or as long as a song.
"""

from __future__ import annotations

from pathlib import Path

_RATE = 44100
_BLOCK = 8192  # libsndfile's Vorbis encoder overflows its stack on long blocks


def sound_files(music: str, count: int) -> list[Path]:
    """``count`` files, evenly spread over the folder."""
    from msim_tf.audio.scan import scan_folder

    scan = scan_folder(Path(music))
    identifiers = list(scan.files)
    step = max(1, len(identifiers) // count)
    return [scan.root / name for name in identifiers[::step][:count]]


def make_stereo_files(music: str, count: int, folder: Path) -> list[Path]:
    """``count`` stereo files at 44.1 kHz, by turns mp3 and ogg: one excerpt on the left,
    half of another added on the right.
    """
    import numpy as np
    import soundfile

    from msim_tf.audio.decode import load_clip

    folder.mkdir(parents=True, exist_ok=True)
    clips = [load_clip(path, sr=_RATE) for path in sound_files(music, count)]
    paths = []
    for number, left in enumerate(clips):
        other = np.resize(clips[(number + 1) % count], left.shape)
        stereo = np.stack([left, (left + other) / 2], 1) * 0.9
        path = folder / f"{number:02d}.{('mp3', 'ogg')[number % 2]}"
        kind = {".mp3": ("MP3", "MPEG_LAYER_III"), ".ogg": ("OGG", "VORBIS")}[path.suffix]
        with soundfile.SoundFile(path, "w", _RATE, 2, format=kind[0], subtype=kind[1]) as file:
            for start in range(0, len(stereo), _BLOCK):
                file.write(stereo[start : start + _BLOCK])
        paths.append(path)
    return paths


def make_songs(music: str, count: int, folder: Path, *, seconds: int) -> list[Path]:
    """``count`` stereo mp3 files at 44.1 kHz and 192 kbit/s, each of excerpts one after another, beginning with another
    excerpt on the left and the next on the right.
    """
    import numpy as np
    import soundfile

    from msim_tf.audio.decode import load_clip

    folder.mkdir(parents=True, exist_ok=True)
    clips = [load_clip(path, sr=_RATE) for path in sound_files(music, max(count, 2))]
    paths = []
    for number in range(count):
        left, right = (
            np.resize(np.concatenate([*clips[first:], *clips[:first]]), seconds * _RATE)
            for first in (number, (number + 1) % len(clips))
        )
        path = folder / f"{number:02d}.mp3"
        # Of 320 to 32 kbit/s.
        constant = {"bitrate_mode": "CONSTANT", "compression_level": 0.4}
        with soundfile.SoundFile(path, "w", _RATE, 2, "MPEG_LAYER_III", format="MP3", **constant) as file:
            file.write(np.stack([left, (left + right) / 2], 1) * 0.9)
        paths.append(path)
    return paths
