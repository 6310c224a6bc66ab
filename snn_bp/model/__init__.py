"""What a network is: layers as values, the modules they build, how they run, and the losses of their output."""
