"""Export with proof: integers for the chip, files that hold them, and the replay that shows both equal."""
