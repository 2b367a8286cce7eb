"""Sound as FFmpeg decodes it (by PyAV): what libsndfile does not know, and what it gives up.

FFmpeg goes on behind damage and over the seams of chained streams. It gets an open file rather than a name, may open no
other, and no playlist: a file that somebody uploads must not make it read another one or ask the network.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from msim_tf.audio.ape_tags import ID3V1_BYTES
from msim_tf.audio.audio_lengths import PatchedFile

# Demuxers of sound. Without playlists, scripts and device inputs, which would read what is not in the file.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,aac,asf,asf_o,wv,ape,tta,matroska,webm,mp3,ac3,eac3,dts,dtshd,dsf,iff,flac,ogg,wav,aiff,au,caf,w64,amr,amrnb,"
    "amrwb,mpc,mpc8,tak,shn,rm,voc,oma,mlp,truehd,loas,ivr"
)
# Demuxers whose stated length is counted rather than estimated from the bit rate.
_COUNTING = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "asf", "ape", "wv", "tta", "flac", "dsf", "wav", "aiff", "caf"}
_COUNTING |= {"w64", "tak", "mpc", "mpc8", "iff", "au", "ogg"}
_COUNTING_PCM = {"wav", "w64", "au", "aiff"}  # of coded samples they only know the bytes
# Raw streams carry tags between their packets, which FFmpeg takes for one damaged packet.
_RAW = {"mp3", "aac", "ac3", "eac3", "dts"}
_HEADLESS = {"flac", "loas", "mlp", "truehd"}
# Decoders that compare checksums only if told to, and then refuse what fails; else it would sound as noise. That of MP3
# is not told: some encoders write wrong ones.
_CHECKED = {"flac", "tta", "wavpack", "ape", "tak", "ac3", "eac3"}
# Decoders that only log what they find damaged; that of Monkey's Audio when most of a packet has been handed out.
_LOGGING = {"mpc7", "mpc8", "mlp", "truehd", "ape"}
_PROTECTED_TAGS = {"drms", "enca", "aavd"}
_SCALES = {"u1": 2.0**-7, "i2": 2.0**-15, "i4": 2.0**-31, "i8": 2.0**-63}
_MOST_TAGS, _LONGEST_TAG = 1000, 10_000
_TAG_PROBE = 2**16  # bytes; of PCM FFmpeg would read megabytes, in search of other coders' frames in it
_VOC = b"Creative Voice File"
_SECONDS = 1_000_000  # FFmpeg's AV_TIME_BASE


class Unreadable(Exception):
    """FFmpeg cannot read the file; the text says why."""


class FFmpegStream:
    """An open file.

    Attributes:
        rate: samples per second and channel, at its start.
        declared: seconds that the header states, None if it only allows an estimate.
        faults: packets so far that could not be decoded.
        packets: all packets so far.
        guessed: whether only the pattern of its packets tells the format, which random bytes may show as well.
        dsd: whether the samples are one-bit, whose rates are beyond all others.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        self._raw = container.format.name in _RAW or stream.codec_context.name.startswith("mp3")
        self.guessed = self._raw or container.format.name in _HEADLESS
        self.rate = int(stream.codec_context.sample_rate or 0)
        self.dsd = stream.codec_context.name.startswith("dsd_")
        self.declared: float | None = None
        name = container.format.name
        if name in _COUNTING and (name not in _COUNTING_PCM or stream.codec_context.name.startswith("pcm_")):
            if stream.duration:
                self.declared = float(stream.duration * stream.time_base)
            elif container.duration and len(container.streams) == 1:
                self.declared = container.duration / _SECONDS
        self._checked = stream.codec_context.name in _CHECKED
        self._faults = 0
        self._last_failed = False
        self.packets = 0

    @property
    def metadata(self) -> dict[str, str]:
        """Tags of the file, and of its sound where the file has none of that name; bounded in number and length."""
        tags = {**self._stream.metadata, **self._container.metadata}
        return {name: text[:_LONGEST_TAG] for name, text in islice(tags.items(), _MOST_TAGS)}

    @property
    def faults(self) -> int:
        """Damaged packets; raw streams may have one that is a tag, behind the sound where packets have checksums."""
        tag = self._raw and (self._last_failed or not self._checked)
        return max(0, self._faults - 1) if tag else self._faults

    def blocks(self, start: int, frames: int) -> Iterator[tuple[int, np.ndarray]]:
        """Decodes on from frame ``start``, which is counted from the first frame that decodes.

        Yields:
            (rate, [frames or a little more, channels] float32); a block ends where rate or channels change.
        """
        waiting: list[np.ndarray] = []
        length, shape = 0, (0, 0)
        for rate, samples in self._frames():
            # Drop what lies before the start.
            dropped = min(start, len(samples))
            start, samples = start - dropped, samples[dropped:]
            if not len(samples):
                continue
            if waiting and (shape != (rate, samples.shape[1]) or length >= frames):
                yield shape[0], np.concatenate(waiting)
                waiting, length = [], 0
            shape = (rate, samples.shape[1])
            waiting.append(samples)
            length += len(samples)
        if waiting:
            yield shape[0], np.concatenate(waiting)

    def _frames(self) -> Iterator[tuple[int, np.ndarray]]:
        """Every frame that decodes; damaged packets are counted, and left out if the decoder refuses them."""
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError:
                self._faults += 1
                return
            try:
                decoded, complaints = _decoded(packet, self._stream.codec_context.name in _LOGGING)
                failed = bool(complaints)
                if failed and self._checked:
                    decoded = []
            except MemoryError:
                raise
            except av.error.FFmpegError:
                decoded, failed = [], True
            if packet.size:  # the last one, without bytes, only asks for what the decoder still has
                self.packets += 1
                self._last_failed = failed
            self._faults += failed
            for frame in decoded:
                if frame.samples and frame.sample_rate:
                    yield frame.sample_rate, _samples(frame)


def _decoded(packet: Any, logs: bool) -> tuple[list[Any], list[Any]]:
    """Frames of a packet, and what the decoder logs as an error if ``logs``."""
    import av

    if not logs:
        return packet.decode(), []
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as messages:
            return packet.decode(), messages
    finally:
        av.logging.set_level(None)


def _samples(frame: Any) -> np.ndarray:
    """A frame as [samples, channels] float32, integers scaled to [-1, 1)."""
    values = frame.to_ndarray()
    # Planar frames are [channels, samples], packed ones [1, samples * channels].
    samples = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    kind = samples.dtype.str[1:]
    if kind not in _SCALES:
        return samples.astype(np.float32)
    offset = 128 if kind == "u1" else 0
    return ((samples.astype(np.float64 if kind in ("i4", "i8") else np.float32) - offset) * _SCALES[kind]).astype(
        np.float32
    )


def metadata(path: Path) -> dict[str, str]:
    """Tags of a file and of its sound as FFmpeg names them; empty if it cannot read the file.

    Raises:
        OSError: if the file cannot be opened.
    """
    try:
        with opened(path, tags=True) as stream:
            return stream.metadata
    except Unreadable:
        return {}


class _BeforeTag(PatchedFile):
    """A file that ends before its ID3v1 tag, if it has one.

    FFmpeg up to 7 takes the tag for a part of the last FLAC frame, which then fails its checksum.
    """

    def __init__(self, file: BinaryIO, patches: tuple[tuple[int, bytes], ...]) -> None:
        super().__init__(file, patches)
        self._end = file.seek(0, io.SEEK_END)
        if self._end > ID3V1_BYTES:
            file.seek(-ID3V1_BYTES, io.SEEK_END)
            if file.read(3) == b"TAG":
                self._end -= ID3V1_BYTES
        file.seek(0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            return super().seek(self._end + offset)
        return super().seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._end - self.tell())
        return super().read(left if size < 0 else min(size, left)) or b""


@contextmanager
def opened(
    path: Path, *, to_end: bool = False, tags: bool = False, patches: tuple[tuple[int, bytes], ...] = ()
) -> Iterator[FFmpegStream]:
    """Opens a file for one pass.

    Args:
        path: the file.
        to_end: read a WAV file to its end, whatever its header says.
        tags: open it for its tags: little is read to find out what it is, and a tag at its end counts too; the last
            frame in front of that may then be lost.
        patches: (place, bytes) that FFmpeg reads instead of what stands there.

    Raises:
        Unreadable: if PyAV is missing, or FFmpeg finds no sound in the file that it can decode.
        OSError: if the file cannot be opened.
    """
    try:
        import av
    except ImportError as error:
        raise Unreadable("needs PyAV (pip install av)") from error
    # FFmpeg's own messages would break into a progress bar.
    av.logging.set_level(None)
    options = {"protocol_whitelist": "none", "format_whitelist": _FORMATS, "ignore_length": str(int(to_end))}
    if tags:
        options["probesize"] = str(_TAG_PROBE)
    # Bytes of a tag that are no UTF-8 must not end the read; from 19 on PyAV passes over them by itself.
    lenient: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
    with open(path, "rb") as file:
        form = None
        if file.read(len(_VOC)) == _VOC:
            # PyAV before 18 crashes on options for a demuxer that has no stream yet when the header is read.
            form, options = "voc", {}
        file.seek(0)
        source = file if tags else _BeforeTag(file, patches)
        try:
            container = av.open(source, format=form, options=options, **lenient)
        except MemoryError:
            raise
        except (av.error.FFmpegError, ValueError) as error:
            raise Unreadable(getattr(error, "strerror", None) or str(error)) from error
        with container:
            yield FFmpegStream(container, _sound(container))


def _sound(container: Any) -> Any:
    """The stream of sound: the first, as players choose it."""
    if not container.streams.audio:
        raise Unreadable("holds no sound")
    stream = container.streams.audio[0]
    context = stream.codec_context
    tag = str(getattr(context, "codec_tag", "")).strip("\0") if context else ""
    if tag in _PROTECTED_TAGS:
        raise Unreadable("is protected by DRM")
    if context is None:
        raise Unreadable("its codec has no decoder here; it may be protected by DRM")
    if not context.sample_rate:
        raise Unreadable("no sound is found in it")  # bytes that only look like a format without a header
    # One thread: the process has one core's worth of work, and a stack for each thread counts against its memory.
    context.thread_count = 1
    if context.name in _CHECKED:
        context.options = {"err_detect": "crccheck+explode"}
    return stream
