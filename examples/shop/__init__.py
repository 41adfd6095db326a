"""A small shop whose pages update themselves: `make demo`, or `python -m examples.shop`."""
