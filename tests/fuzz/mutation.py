"""Damage to bytes, as disks, downloads and broken writers do it."""

from random import Random

_EXTREMES = (b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\x00\x00\x00")
_HEADER = 256  # bytes in which most formats say what follows


def flip_bits(data: bytes, random: Random, *, most: int = 8) -> bytes:
    """One to ``most`` bits turned, anywhere."""
    changed = bytearray(data)
    for _ in range(random.randint(1, most)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def flip_header(data: bytes, random: Random) -> bytes:
    """Bits turned in the header only."""
    return flip_bits(data[:_HEADER], random) + data[_HEADER:]


def set_extreme(data: bytes, random: Random) -> bytes:
    """A size or a count in the header becomes 0, huge or negative."""
    place = random.randrange(min(_HEADER, len(data)))
    value = random.choice(_EXTREMES)
    return data[:place] + value + data[place + len(value) :]


def truncate(data: bytes, random: Random) -> bytes:
    """Only the beginning, as an interrupted download leaves it; perhaps nothing."""
    return data[: random.randrange(len(data))]


def behead(data: bytes, random: Random) -> bytes:
    """Only the end."""
    return data[random.randint(1, len(data)) :]


def cut_hole(data: bytes, random: Random) -> bytes:
    """A part is missing."""
    start = random.randrange(len(data))
    return data[:start] + data[start + random.randint(1, max(1, len(data) // 4)) :]


def zero_hole(data: bytes, random: Random) -> bytes:
    """A part is zeros, as a file system leaves it after a crash."""
    start = random.randrange(len(data))
    size = min(random.randint(1, max(1, len(data) // 4)), len(data) - start)
    return data[:start] + bytes(size) + data[start + size :]


def repeat_part(data: bytes, random: Random) -> bytes:
    """A part stands twice."""
    start = random.randrange(len(data))
    end = min(len(data), start + random.randint(1, max(1, len(data) // 4)))
    return data[:end] + data[start:end] + data[end:]


def append_noise(data: bytes, random: Random) -> bytes:
    """Bytes follow that belong to nothing."""
    return data + random.randbytes(random.randint(1, 4096))


DAMAGES = (flip_bits, flip_header, set_extreme, truncate, behead, cut_hole, zero_hole, repeat_part, append_noise)


def damaged(data: bytes, random: Random) -> bytes:
    """``data`` (not empty) after one or two kinds of damage."""
    for _ in range(random.choice((1, 1, 2))):
        data = random.choice(DAMAGES)(data, random) or b"\x00"
    return data
