"""What snn_bp changes or asks of the process it runs in: signals, freed memory, the memory there is."""
