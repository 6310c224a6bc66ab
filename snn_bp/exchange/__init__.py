"""Networks of other libraries and formats: NIR both ways, and snnTorch."""
