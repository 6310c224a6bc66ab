"""Loihi: its rules, a network in its integers, the exported file, its replay, and the client that runs it."""
