"""Export, and the replay that compares the file with the network, recording by recording."""
