"""A Subsonic proxy: the library's answers to "similar songs", for the players people already have."""
