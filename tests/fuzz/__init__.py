"""The fuzz stage of CI: wrong input in bulk, from a seed, within a bounded time.

    make fuzz                                           every target, two minutes, a new seed (printed)
    make fuzz ARGS="--seed 7 --seconds 600"             longer, from a known seed
    make fuzz ARGS="--seed 7 --target audio --case 3"   one case again

Each target runs in a process of its own and makes its cases one after the other; a case depends on the seed, the
target and its number only. A target fails by an exception, by the death of its process, or by a case that takes
too long; what the failed case used stays in build/fuzz/. This is no proof and does not replace the tests: it
looks for members of a kind that nobody thought of.
"""
