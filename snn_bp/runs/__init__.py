"""What a run is: its experiment, its folder with checkpoints and records, where it comes from, what it can do."""
