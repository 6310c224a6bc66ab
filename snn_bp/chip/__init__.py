"""Loihi, circuits for an FPGA, and Xylo: their rules, a network in their integers, exported files, and replays."""
