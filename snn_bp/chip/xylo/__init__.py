"""Xylo of SynSense: its rules, a network in its integers, the file of its configuration, replay, and simulator."""
