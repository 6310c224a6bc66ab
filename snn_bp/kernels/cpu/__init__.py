"""The compiled loops of the CPU, an operation a file."""
