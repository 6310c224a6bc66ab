"""The parts of `speed.py`: the works, our step, the peers' steps, and what is measured of them."""
