"""How many bits a contribution to a merge has, to the bit."""

from orionbed.scenario.merging import Codec

INT8_BITS = 8


def contribution_bits(codec: Codec, parameters: int, weight_bytes: int) -> int:
    """Return the bits of what one peer of a stage contributes, all of the stage's `parameters` together.

    sparse: of every chunk `keep` values with `bits` bits each and their places, which take as many bits as a chunk's
    places need: 64 x (12 + 2) of 4096 x 32 are 1/146.3 of 32-bit numbers (SparseLoCo, arXiv 2508.15706). The last chunk
    may be shorter, and keeps no more than it has. sparta: the share's numbers as they are, rounded up to a whole
    number of parameters; places are drawn from a seed that all peers have (SPARTA, exo labs 2025).
    """
    if codec.kind == "int8":
        return INT8_BITS * parameters
    if codec.kind == "sparse":
        whole, rest = divmod(parameters, codec.chunk)
        place_bits = (codec.chunk - 1).bit_length()
        return (whole * codec.keep + min(codec.keep, rest)) * (place_bits + codec.bits)
    if codec.kind == "sparta":
        return -(-int(codec.share * 1e9 + 0.5) * parameters // 1_000_000_000) * (8 * weight_bytes // parameters)
    return 8 * weight_bytes


def moved_weight_bits(codec: Codec, parameters: int, weight_bytes: int) -> int:
    """Return the bits of the weights that a butterfly moves back: all of them, or only those that SPARTA averages."""
    return contribution_bits(codec, parameters, weight_bytes) if codec.kind == "sparta" else 8 * weight_bytes


def coding_s(codec: Codec) -> tuple[float, float]:
    """Return the seconds that encoding a stage and decoding it take."""
    return (0.0, 0.0) if codec.kind == "none" else (codec.encode, codec.decode)
