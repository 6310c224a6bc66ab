// The synapses of a dense population: a spike costs its row of the memory, one word of weights in a cycle.
module snn_dense #(
    parameter WORDS = 1,    // of a row: one for each word of neurons
    parameter LAST_WORD = 0,
    parameter ROWS = 1,     // one for each input, then one for each recurrent neuron
    parameter ADDRESS = 1,  // bits of an address in the memory, and of a row's number
    parameter WIDTH = 8,    // bits of a word of weights
    parameter WORD = 1,     // bits of a word's number in its row
    parameter FILE = ""
) (
    input  wire               clk,
    input  wire               rst,
    input  wire               in_valid,
    output wire               in_ready,
    input  wire [1:0]         in_kind,     // 0: a spike of row `in_address`, 1: end of the step, 2: end of the recording
    input  wire [ADDRESS-1:0] in_address,
    output reg                add,         // one word of weights, to be added to the sums
    output reg  [WORD-1:0]    add_word,
    output wire [WIDTH-1:0]   add_weights,
    output reg                step,        // all of this step is added
    output reg                clear,       // the recording has ended
    input  wire               done         // the neurons are ready for what follows
);
  reg waiting;                 // for the neurons
  reg [ADDRESS-1:0] word;      // of the row
  wire take = in_valid && !waiting;
  wire spike = take && in_kind == 2'd0;
  wire last = word == LAST_WORD;

  assign in_ready = !waiting && (in_kind != 2'd0 || last);

  snn_rom #(.WIDTH(WIDTH), .DEPTH(ROWS * WORDS), .ADDRESS(ADDRESS), .FILE(FILE)) weights (
      .clk(clk), .enable(spike), .address(in_address * WORDS[ADDRESS-1:0] + word), .word(add_weights)
  );

  always @(posedge clk) begin
    add <= spike && !rst;
    add_word <= word[WORD-1:0];
    step <= take && in_kind == 2'd1 && !rst;
    clear <= take && in_kind == 2'd2 && !rst;
    if (rst) waiting <= 1'b1;
    else if (done) waiting <= 1'b0;
    else if (take && in_kind != 2'd0) waiting <= 1'b1;
    if (rst) word <= 0;
    else if (spike) word <= last ? 0 : word + 1;
  end
endmodule
