// A memory with one port to read and one to write. Nobody reads a word in the cycle in which it is written.
module snn_ram #(
    parameter WIDTH = 8,
    parameter DEPTH = 2,
    parameter ADDRESS = 1
) (
    input  wire               clk,
    input  wire               read,
    input  wire [ADDRESS-1:0] read_address,
    output reg  [WIDTH-1:0]   read_word,      // one cycle later
    input  wire               write,
    input  wire [ADDRESS-1:0] write_address,
    input  wire [WIDTH-1:0]   write_word
);
  (* no_rw_check *) reg [WIDTH-1:0] words [0:DEPTH-1];

  always @(posedge clk) begin
    if (write) words[write_address] <= write_word;
    if (read) read_word <= words[read_address];
  end
endmodule
