// A spiking network; README.md says how it is used.
// population 0: 32 neurons, dense
// population 1: 3 neurons, dense
module net (
    input  wire clk,
    input  wire rst,
    input  wire in_valid,
    output wire in_ready,
    input  wire [1:0] in_kind,
    input  wire [9:0] in_address,
    output wire out_valid,
    input  wire out_ready,
    output wire [1:0] out_kind,
    output wire [1:0] out_address
);
  wire [11:0] in_row = {2'd0, in_address};
  wire out_0_valid, out_0_ready;
  wire [1:0] out_0_kind;
  wire [4:0] out_0_address;
  wire out_1_valid, out_1_ready;
  wire [1:0] out_1_kind;
  wire [1:0] out_1_address;

  // population 0: 32 neurons, dense
  wire add_0, step_0, clear_0, done_0;
  wire [1:0] add_cell_0;
  wire [63:0] add_weights_0;
  snn_dense #(
      .WORDS(4), .LAST_WORD(3), .WORD(2), .ROWS(578),
      .ADDRESS(12), .WIDTH(64), .FILE("weights_0.hex")
  ) synapses_0 (
      .clk(clk), .rst(rst), .in_valid(in_valid), .in_ready(in_ready), .in_kind(in_kind), .in_address(in_row),
      .add(add_0), .add_word(add_cell_0), .add_weights(add_weights_0),
      .step(step_0), .clear(clear_0), .done(done_0)
  );
  wire move_0;
  wire [1:0] parameter_word_0;
  wire [151:0] bias_0;
  wire [151:0] threshold_0 = {8{19'd138560}};
  wire [103:0] current_kept_0 = {8{13'd0}};
  wire [103:0] potential_kept_0 = {8{13'd3354}};
  snn_rom #(.WIDTH(152), .DEPTH(4), .ADDRESS(2), .FILE("bias_0.hex")) bias_0_memory (
      .clk(clk), .enable(move_0), .address(parameter_word_0[1:0]), .word(bias_0)
  );
  wire signed [23:0] unused_value_0;
  snn_neurons #(
      .LANES(8), .LAST_WORD(3), .WORD(2), .LAST_CELL(3), .CELL(2), .NEXT_STEP(0),
      .WEIGHT(8), .SUM(23), .UNIT(6), .CURRENT(29), .STATE(24), .LEVEL(19),
      .KEPT(13), .WIDE(31), .HIGHEST(23), .SHIFT(0), .HELD(0), .WRAP_SUM(0),
      .WRAP(1), .SATURATE(0), .SATURATE_POTENTIAL(1), .RESET(1),
      .LAST_OF_CHANNELS(3), .LAST_LANES(8), .ADDRESS(5),
      .READOUT(0)
  ) neurons_0 (
      .clk(clk), .rst(rst), .add(add_0), .add_cell(add_cell_0), .add_weights(add_weights_0),
      .step(step_0), .clear(clear_0), .done(done_0), .move(move_0),
      .parameter_word(parameter_word_0), .bias(bias_0), .threshold(threshold_0),
      .current_kept(current_kept_0), .potential_kept(potential_kept_0),
      .out_valid(out_0_valid), .out_ready(out_0_ready), .out_kind(out_0_kind), .out_address(out_0_address),
      .out_value(unused_value_0)
  );

  // population 1: 3 neurons, dense
  wire add_1, step_1, clear_1, done_1;
  wire [0:0] add_cell_1;
  wire [23:0] add_weights_1;
  snn_dense #(
      .WORDS(1), .LAST_WORD(0), .WORD(1), .ROWS(32),
      .ADDRESS(5), .WIDTH(24), .FILE("weights_1.hex")
  ) synapses_1 (
      .clk(clk), .rst(rst), .in_valid(out_0_valid), .in_ready(out_0_ready), .in_kind(out_0_kind), .in_address(out_0_address),
      .add(add_1), .add_word(add_cell_1), .add_weights(add_weights_1),
      .step(step_1), .clear(clear_1), .done(done_1)
  );
  wire move_1;
  wire [0:0] parameter_word_1;
  wire [44:0] bias_1;
  wire [44:0] threshold_1 = {3{15'd9152}};
  wire [38:0] current_kept_1 = {3{13'd0}};
  wire [38:0] potential_kept_1 = {3{13'd3354}};
  snn_rom #(.WIDTH(45), .DEPTH(1), .ADDRESS(1), .FILE("bias_1.hex")) bias_1_memory (
      .clk(clk), .enable(move_1), .address(parameter_word_1[0:0]), .word(bias_1)
  );
  wire signed [19:0] unused_value_1;
  snn_neurons #(
      .LANES(3), .LAST_WORD(0), .WORD(1), .LAST_CELL(0), .CELL(1), .NEXT_STEP(0),
      .WEIGHT(8), .SUM(12), .UNIT(6), .CURRENT(18), .STATE(20), .LEVEL(15),
      .KEPT(13), .WIDE(26), .HIGHEST(23), .SHIFT(0), .HELD(0), .WRAP_SUM(0),
      .WRAP(0), .SATURATE(0), .SATURATE_POTENTIAL(0), .RESET(1),
      .LAST_OF_CHANNELS(0), .LAST_LANES(3), .ADDRESS(2),
      .READOUT(0)
  ) neurons_1 (
      .clk(clk), .rst(rst), .add(add_1), .add_cell(add_cell_1), .add_weights(add_weights_1),
      .step(step_1), .clear(clear_1), .done(done_1), .move(move_1),
      .parameter_word(parameter_word_1), .bias(bias_1), .threshold(threshold_1),
      .current_kept(current_kept_1), .potential_kept(potential_kept_1),
      .out_valid(out_1_valid), .out_ready(out_1_ready), .out_kind(out_1_kind), .out_address(out_1_address),
      .out_value(unused_value_1)
  );

  assign out_valid = out_1_valid;
  assign out_1_ready = out_ready;
  assign out_kind = out_1_kind;
  assign out_address = out_1_address;
endmodule
