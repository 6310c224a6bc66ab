// A memory that is only read: the word at `address` one cycle later, where `enable`.
module snn_rom #(
    parameter WIDTH = 8,
    parameter DEPTH = 2,
    parameter ADDRESS = 1,  // bits of an address
    parameter FILE = ""     // its words, in hexadecimal
) (
    input  wire               clk,
    input  wire               enable,
    input  wire [ADDRESS-1:0] address,
    output reg  [WIDTH-1:0]   word
);
  reg [WIDTH-1:0] words [0:DEPTH-1];

  initial $readmemh(FILE, words);

  always @(posedge clk) if (enable) word <= words[address];
endmodule
