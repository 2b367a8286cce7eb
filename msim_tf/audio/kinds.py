"""What a sound file is, by its first bytes rather than its name, and which names a scan looks at.

``sniff`` names the kind; ``mpeg_header`` and ``ogg_layout`` read the little that tells whether
libsndfile will decode such a file whole.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from msim_tf.audio import audio_lengths, flac_frames

# Suffixes of sound that is decoded: by libsndfile (first row) or FFmpeg.
AUDIO_SUFFIXES: tuple[str, ...] = (
    *(".wav", ".wave", ".bwf", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".snd"),
    *(".caf", ".w64", ".rf64", ".voc"),
    *(".m4a", ".m4b", ".m4r", ".m4p", ".aac", ".adts", ".mp1", ".mp2", ".mpa", ".mpga", ".wma", ".asf", ".wv", ".ape"),
    *(".tta", ".mka", ".weba", ".webm", ".ac3", ".eac3", ".ec3", ".dts", ".dsf", ".dff", ".mpc", ".mp+", ".mpp"),
    *(".tak", ".shn", ".spx", ".ra", ".rm", ".ram", ".amr", ".awb", ".3ga", ".aax", ".oma", ".aa3", ".at3", ".mlp"),
)

# Names of music that no decoder here reads: a scan counts them by type instead of passing over them in silence.
UNSUPPORTED_SUFFIXES: tuple[str, ...] = (
    # lossless coders without an open decoder, encrypted books, disc images
    *(".ofr", ".ofs", ".la", ".aa", ".mqa", ".cda", ".iso", ".sacd", ".thd", ".truehd"),
    # notes rather than sound
    *(".mid", ".midi", ".kar", ".rmi", ".mod", ".xm", ".it", ".s3m", ".mtm", ".mptm", ".sid", ".nsf", ".spc", ".vgm"),
    *(".vgz", ".gbs", ".ay", ".ym", ".sap"),
    # video, which may hold music
    *(".mp4", ".m4v", ".mkv", ".mov", ".avi", ".wmv", ".flv", ".mpg", ".mpeg", ".ogv", ".3gp", ".vob", ".ts", ".m2ts"),
)

_SNDFILE_MAGIC = {
    b"RIFF": "wav",
    b"RIFX": "wav",
    b"RF64": "wav",
    b"riff": "w64",
    b"FORM": "aiff",
    b".snd": "au",
    b"dns.": "au",
    b"caff": "caf",
    b"fLaC": "flac",
}
_SHORTEST_FRAME, _LONGEST_FRAME = 24, 1441  # bytes of MPEG layer 3
_SEARCHED = 2**16  # bytes in which the first MPEG frame must begin
_HEAD = 2**16


@dataclass(frozen=True)
class Kind:
    """What a file holds.

    Attributes:
        name: "wav", "flac", "ogg", "mp3", ...; "other" for what only FFmpeg may know.
        sndfile: whether libsndfile decodes it whole.
        whole: False if it visibly ends before its end.
        links: (start, stop) bytes of the streams of an Ogg file that follow each other, if there are several.
        protected: whether it is encrypted.
        stated_seconds: length that the header states, where the decoder would not tell it as it stands there.
        doubted: whether the file itself contradicts ``stated_seconds``; then its end counts, not the header.
        present: share of the bytes of samples in the header that are there, where no decoder compares them.
        patches: (place, bytes): how a decoder must read the header to decode all that is there.
    """

    name: str
    sndfile: bool = False
    whole: bool = True
    links: tuple[tuple[int, int], ...] = ()
    protected: bool = False
    stated_seconds: float | None = None
    doubted: bool = False
    present: float = 1.0
    patches: tuple[tuple[int, bytes], ...] = ()


def sniff(path: Path) -> Kind:
    """The kind of a file that is not empty.

    Raises:
        OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        start = _after_id3(file)
        file.seek(start)
        head = file.read(_HEAD)

        # Containers and PCM formats by their magic bytes.
        if head.startswith(b"OggS"):
            layout = ogg_layout(file)
            # libsndfile knows no Speex, and fails at the end of some FLAC in Ogg.
            other = b"Speex  " in head[:64] or b"\x7fFLAC" in head[:64]
            return Kind(
                "ogg", sndfile=not other, whole=layout.whole, links=layout.links if len(layout.links) > 1 else ()
            )
        if head[4:8] == b"ftyp":
            return Kind("mp4")
        if name := _SNDFILE_MAGIC.get(head[:4]):
            return _of_sndfile(name, file, start)
        if head.startswith(b"MPCK"):
            seconds, patches = audio_lengths.musepack_seconds(head)
            return Kind("mpc", stated_seconds=seconds, patches=patches)
        if head.startswith(b"DSD "):
            return Kind("dsf", stated_seconds=audio_lengths.dsf_seconds(head))
        if head.startswith(_ASF):
            return Kind(
                "asf", protected=any(guid in head for guid in _ASF_PROTECTED), stated_seconds=_asf_seconds(head)
            )
        # MPEG audio has none: three frames in a row tell it.
        header = mpeg_header(file, start)
    if header is None:
        return Kind("other")
    # Without a frame count libsndfile estimates the length and decodes no further, which loses most of some files.
    if header.layer == 3 and header.counted:
        return Kind("mp3", sndfile=True)
    return Kind("mp3", stated_seconds=header.seconds, doubted=header.doubted)


def _of_sndfile(name: str, file: BinaryIO, start: int) -> Kind:
    """The kind of what libsndfile decodes, from ``start`` on, if the header is right."""
    beyond = {
        "wav": lambda: audio_lengths.wav_beyond_header(file, start),
        "aiff": lambda: audio_lengths.aiff_beyond_header(file, start),
        "caf": lambda: audio_lengths.caf_beyond_header(file),
        "au": lambda: audio_lengths.au_beyond_header(file),
        "flac": lambda: flac_frames.flac_beyond_header(file, start),
        "w64": lambda: None,  # libsndfile decodes it to its end
    }[name]()
    if beyond is not None:
        # Without patches it takes FFmpeg, which can be told to go on.
        sndfile = bool(beyond.patches)
        return Kind(name, sndfile=sndfile, stated_seconds=beyond.seconds, doubted=True, patches=beyond.patches)
    if name == "flac":
        return Kind(name, sndfile=True, stated_seconds=flac_frames.flac_part_seconds(file, start))
    return Kind(name, sndfile=True, present=_caf_share(file) if name == "caf" else 1.0)


# --- Windows Media ---------------------------------------------------------------------------------------------------

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
# Content Encryption Object and its extended form (ASF specification, 3.14 and 3.15).
_ASF_PROTECTED = (bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"), bytes.fromhex("14e68a292226174cb935dae07ee9289c"))
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def _asf_seconds(head: bytes) -> float | None:
    """Length by the file properties object (3.2): play duration in 100 ns less preroll in ms; a broadcast has none."""
    start = head.find(_ASF_PROPERTIES) + 64
    if start < 64 or len(head) < start + 28:
        return None
    play, _, preroll, flags = struct.unpack("<QQQI", head[start : start + 28])
    return None if flags & 1 else max(0.0, play / 1e7 - preroll / 1e3) or None


# --- Core Audio ------------------------------------------------------------------------------------------------------


def _caf_share(file: BinaryIO) -> float:
    """Share of the data chunk that the file holds."""
    size = file.seek(0, os.SEEK_END)
    offset = 8
    while offset + 12 <= size:
        file.seek(offset)
        name, length = struct.unpack(">4sq", file.read(12))
        if name == b"data":
            return min(1.0, (size - offset - 12) / length) if length > 0 else 1.0
        if length < 0:
            break
        offset += 12 + length
    return 1.0


# --- Ogg -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OggLayout:
    """How the pages of an Ogg file lie.

    Attributes:
        links: (start, stop) bytes of the streams that follow each other (RFC 3533, section 4): several in a
            recorded radio programme, or after ``cat a.ogg b.ogg``.
        whole: the last page is complete and marked as the last.
    """

    links: tuple[tuple[int, int], ...]
    whole: bool


def ogg_layout(file: BinaryIO) -> OggLayout:
    """Walks over the page headers of an Ogg file; a damaged stretch is skipped."""
    began = last = complete = False
    starts = [0]
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        page = data.find(b"OggS")
        while page >= 0 and page + 27 <= len(data):
            # Page header: flags at byte 5 (2 = first of a stream, 4 = last), lacing table
            # from byte 27, its length at byte 26.
            flags, lacing = data[page + 5], data[page + 27 : page + 27 + data[page + 26]]
            # A first page behind others than first pages begins a new link; at its head a
            # link has one for each of its streams.
            if began and flags & 2:
                starts.append(page)
            began = not flags & 2
            end = page + 27 + data[page + 26] + sum(lacing)
            last, complete = bool(flags & 4), end <= len(data)
            page = end if data[end : end + 4] == b"OggS" else data.find(b"OggS", page + 4)
        ends = [*starts[1:], len(data)]
    return OggLayout(tuple(zip(starts, ends)), last and complete)


# --- MPEG audio ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MpegHeader:
    """The start of an MPEG audio stream.

    Attributes:
        layer: 1, 2 or 3.
        counted: a Xing, Info or VBRI header counts its frames, and the file goes on no further than that header says.
        seconds: what that header counts, None without one.
        doubted: so many frames cannot fill its bytes.
    """

    layer: int
    counted: bool
    seconds: float | None
    doubted: bool = False


def mpeg_header(file: BinaryIO, start: int) -> MpegHeader | None:
    """The MPEG audio header at or soon after ``start``; None if there are not three frames in a row."""
    size = file.seek(0, os.SEEK_END)
    file.seek(start)
    data = file.read(_SEARCHED)
    # From sync word to sync word; only a frame that is followed by two of the same kind is one.
    offset = data.find(b"\xff")
    while 0 <= offset < len(data) - 4:
        lengths = _frame_lengths(data, offset, 3)
        if len(lengths) == 3 or (lengths and offset + sum(lengths) >= min(len(data), size - start)):
            layer = 4 - (data[offset + 1] >> 1 & 3)
            frames, counted_bytes = _counted(data, offset)
            left = _end_without_tags(file, size) - start - offset
            # A second stream behind the first (``cat a.mp3 b.mp3``) is not in the count of the first.
            counted = frames > 0 and left <= counted_bytes * 1.02 + 4096
            # Frames of a file marked "Info" are as long as its first ones, give or take a byte; others vary.
            shortest, longest = _SHORTEST_FRAME, _LONGEST_FRAME
            if b"Info" in data[offset : offset + 64]:
                shortest, longest = min(lengths) - 1, max(lengths) + 1
            whole = frames > 0 and abs(left - counted_bytes) <= counted_bytes * 0.02 + 4096
            # Whether the first frame, which holds the count, is counted itself is not agreed upon.
            doubted = whole and not (
                0.95 * shortest <= counted_bytes / frames and counted_bytes / (frames + 1) <= 1.05 * longest
            )
            # A frame of layer 3 has 1152 samples in MPEG 1 and half as many in later versions.
            word = int.from_bytes(data[offset : offset + 4], "big")
            frame_seconds = (1152 if word >> 19 & 3 == 3 else 576) / _hertz(word)
            seconds = frames * frame_seconds if frames else None
            return MpegHeader(layer, counted and not doubted, seconds, doubted)
        offset = data.find(b"\xff", offset + 1)
    return None


_BITRATES = {  # kbit/s, by (MPEG 1?, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def _frame_lengths(data: bytes, offset: int, count: int) -> list[int]:
    """Lengths of up to ``count`` frames in a row of one version, layer and rate (ISO 11172-3, 2.4.1.3)."""
    lengths: list[int] = []
    first = None
    while len(lengths) < count and offset + 4 <= len(data):
        word = int.from_bytes(data[offset : offset + 4], "big")
        version, layer = word >> 19 & 3, 4 - (word >> 17 & 3)
        bitrate, rate = word >> 12 & 15, word >> 10 & 3
        same = word & 0xFFFE0C00
        if word >> 21 != 0x7FF or version == 1 or layer == 4 or not 0 < bitrate < 15 or rate == 3:
            break
        if first not in (None, same):
            break
        first = same
        hertz = _hertz(word)
        bits = _BITRATES[version == 3, layer][bitrate] * 1000
        padding = word >> 9 & 1
        if layer == 1:
            length = (12 * bits // hertz + padding) * 4
        else:
            length = (72 if layer == 3 and version != 3 else 144) * bits // hertz + padding
        lengths.append(length)
        offset += length
    return lengths


def _hertz(word: int) -> int:
    """Sample rate by a frame's header; MPEG 2 halves those of MPEG 1, MPEG 2.5 halves them again."""
    return (44100, 48000, 32000)[word >> 10 & 3] >> {3: 0, 2: 1, 0: 2}[word >> 19 & 3]


def _counted(data: bytes, offset: int) -> tuple[int, int]:
    """Frames and bytes of the stream as the Xing, Info or VBRI header in its first frame
    counts them; 0 frames without one.
    """
    # Xing or Info stands behind the side information, whose length depends on version and channels.
    mpeg1, mono = data[offset + 1] >> 3 & 1, data[offset + 3] >> 6 == 3
    xing = offset + 4 + ((17 if mono else 32) if mpeg1 else (9 if mono else 17))
    if data[xing : xing + 4] in (b"Xing", b"Info") and len(data) >= xing + 16:
        flags, frames, size = struct.unpack(">III", data[xing + 4 : xing + 16])
        return (frames, size if flags & 2 else 2**62) if flags & 1 else (0, 0)
    # VBRI always stands 32 bytes behind the header of the frame.
    vbri = offset + 36
    if data[vbri : vbri + 4] == b"VBRI" and len(data) >= vbri + 18:
        size, frames = struct.unpack(">II", data[vbri + 10 : vbri + 18])
        return frames, size
    return 0, 0


def _after_id3(file: BinaryIO) -> int:
    """Where the file begins behind its ID3v2 tags, which may be several, and the zeros behind them."""
    start = 0
    while True:
        file.seek(start)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 127:
            return start
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        start += 10 + size + (10 if head[5] & 16 else 0)


def _end_without_tags(file: BinaryIO, size: int) -> int:
    """Where an MPEG stream ends, before an ID3v1 tag (128 bytes) and an APEv2 tag (which states its size)."""
    file.seek(max(0, size - 128))  # ID3v1
    if file.read(3) == b"TAG":
        size -= 128
    file.seek(max(0, size - 32))
    footer = file.read(32)
    if footer[:8] == b"APETAGEX":
        size -= 32 + int.from_bytes(footer[12:16], "little")
    return max(0, size)
