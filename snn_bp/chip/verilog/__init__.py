"""A graph as a circuit: Verilog that can be built, its memories, and a testbench with recordings.

`write.write_verilog` writes the folder, `testbench.write_vectors` recordings for its testbench.
"""
