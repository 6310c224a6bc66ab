// The spikes of a recurrent population, kept until its next step begins: they come before all others.
module snn_recurrence #(
    parameter NUMBER = 1,  // bits of a neuron's number: the list holds 2^NUMBER spikes
    parameter ADDRESS = 1
) (
    input  wire               clk,
    input  wire               rst,
    input  wire               spike,      // is sent in this cycle
    input  wire [ADDRESS-1:0] spike_row,  // of the weights of its recurrent synapses
    input  wire               in_valid,
    output wire               in_ready,
    input  wire [1:0]         in_kind,
    input  wire [ADDRESS-1:0] in_address,
    output wire               out_valid,
    input  wire               out_ready,
    output wire [1:0]         out_kind,
    output wire [ADDRESS-1:0] out_address
);
  reg [NUMBER:0] kept, fetched;
  reg item;  // one is fetched and not yet taken
  wire [ADDRESS-1:0] item_row;
  wire more = kept != fetched;
  wire fetch = more && (!item || out_ready);
  wire pass = !item && !more;

  assign out_valid = item || (pass && in_valid);
  assign out_kind = item ? 2'd0 : in_kind;
  assign out_address = item ? item_row : in_address;
  assign in_ready = pass && out_ready;

  snn_ram #(.WIDTH(ADDRESS), .DEPTH(1 << NUMBER), .ADDRESS(NUMBER)) list (
      .clk(clk), .read(fetch), .read_address(fetched[NUMBER-1:0]), .read_word(item_row),
      .write(spike), .write_address(kept[NUMBER-1:0]), .write_word(spike_row)
  );

  always @(posedge clk) begin
    if (spike) kept <= kept + 1;
    if (fetch) fetched <= fetched + 1;
    item <= fetch || (item && !out_ready);
    if (rst) begin
      kept <= 0;
      fetched <= 0;
      item <= 0;
    end
  end
endmodule
