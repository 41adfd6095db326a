"""The compute graph: cached results that know what they were computed from."""
