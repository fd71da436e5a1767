"""The hash that Spark's function xxhash64 gives, without Spark.

It is XXH64 by Yann Collet (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md).  Of several values, the
hash of each is the seed of the next.  Null leaves the seed as it is.
"""

from collections.abc import Iterable

_MASK = 2**64 - 1
_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
_SEED = 42  # of Spark's function


def spark_hash(values: Iterable[bool | str | None]) -> int:
    """Return xxhash64 of booleans and texts: a signed integer of 64 bits."""
    seed = _SEED
    for value in values:
        if value is not None:
            # Spark hashes a boolean as an integer of 32 bits.
            data = value.encode() if isinstance(value, str) else int(value).to_bytes(4, "little")
            seed = _xxh64(data, seed)
    return seed - 2**64 if seed >= 2**63 else seed


def _xxh64(data: bytes, seed: int) -> int:
    at = 0
    if len(data) >= 32:
        lanes = [(seed + start) & _MASK for start in (_P1 + _P2, _P2, 0, -_P1)]
        while at + 32 <= len(data):
            lanes = [_round(lane, _number(data, at + 8 * i, 8)) for i, lane in enumerate(lanes)]
            at += 32
        total = sum(_turned(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
        for lane in lanes:
            total = ((total ^ _round(0, lane)) * _P1 + _P4) & _MASK
    else:
        total = (seed + _P5) & _MASK
    total = (total + len(data)) & _MASK
    while at + 8 <= len(data):
        total = (_turned(total ^ _round(0, _number(data, at, 8)), 27) * _P1 + _P4) & _MASK
        at += 8
    if at + 4 <= len(data):
        total = (_turned(total ^ _number(data, at, 4) * _P1 & _MASK, 23) * _P2 + _P3) & _MASK
        at += 4
    for byte in data[at:]:
        total = (_turned(total ^ byte * _P5 & _MASK, 11) * _P1) & _MASK
    for shift, factor in ((33, _P2), (29, _P3)):
        total = ((total ^ total >> shift) * factor) & _MASK
    return total ^ total >> 32


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _round(lane: int, word: int) -> int:
    return (_turned((lane + word * _P2) & _MASK, 31) * _P1) & _MASK


def _turned(number: int, by: int) -> int:
    """Return a number of 64 bits turned to the left."""
    return (number << by | number >> (64 - by)) & _MASK
