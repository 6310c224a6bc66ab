// The synapses of a convolution: a spike's kernel, one word of weights in a cycle, at the positions that it reaches.
//
// Tables say for each row and each column of the input how many rows or columns of neurons a spike there reaches, and
// where the first of them and the weights to it are; the further ones stand at fixed distances.
module snn_conv #(
    parameter CHANNEL = 1, ROW = 1, COLUMN = 1,  // bits of an input's address
    parameter CHANNELS = 1, ROWS = 2, COLUMNS = 2,
    parameter GROUPED = 0,         // a table says at which word of a position the channels of a group begin
    parameter LAST_WORD = 0,       // of the channels that an input reaches at one position
    parameter WORD = 1,
    parameter REACH = 1,           // bits of a number of positions
    parameter DEPTH = 2,           // words of weights
    parameter ADDRESS = 1,         // ... and bits of their address
    parameter CHANNEL_WEIGHTS = 1, // words from the weights of one input channel to those of the next
    parameter ROW_WEIGHTS = 1,     // ... of one row of neurons back to those of the next
    parameter COLUMN_WEIGHTS = 1,
    parameter CELL = 1,
    parameter ROW_CELLS = 1,
    parameter COLUMN_CELLS = 1,
    parameter WIDTH = 8,           // bits of a word of weights
    parameter FILE = "", GROUP_FILE = "", ROW_FILE = "", COLUMN_FILE = ""
) (
    input  wire                          clk,
    input  wire                          rst,
    input  wire                          in_valid,
    output wire                          in_ready,
    input  wire [1:0]                    in_kind,     // 0: a spike, 1: end of the step, 2: end of the recording
    input  wire [CHANNEL+ROW+COLUMN-1:0] in_address,  // {channel, row, column}
    output reg                           add,
    output reg  [CELL-1:0]               add_cell,
    output wire [WIDTH-1:0]              add_weights,
    output reg                           step,
    output reg                           clear,
    input  wire                          done
);
  localparam [ADDRESS-1:0] ONE_CHANNEL = CHANNEL_WEIGHTS, ONE_ROW = ROW_WEIGHTS, ONE_COLUMN = COLUMN_WEIGHTS;
  reg waiting;  // for the neurons
  reg looking;  // the tables say where a spike reaches
  reg running;  // its weights are read
  wire is_spike = in_kind == 2'd0;
  wire finished;
  wire load = looking && (!running || finished);
  wire look = in_valid && is_spike && !waiting && (!looking || load);
  wire end_of = in_valid && !is_spike && !waiting && !looking && !running;
  assign in_ready = look || end_of;

  // where the spike reaches
  reg [CHANNEL-1:0] channel;
  wire [REACH-1:0] rows, columns;
  wire [CELL-1:0] row_cell, column_cell;
  wire [ADDRESS-1:0] row_weight, column_weight;
  snn_rom #(.WIDTH(REACH + CELL + ADDRESS), .DEPTH(ROWS), .ADDRESS(ROW), .FILE(ROW_FILE)) row_table (
      .clk(clk), .enable(look), .address(in_address[ROW+COLUMN-1:COLUMN]), .word({rows, row_cell, row_weight})
  );
  snn_rom #(.WIDTH(REACH + CELL + ADDRESS), .DEPTH(COLUMNS), .ADDRESS(COLUMN), .FILE(COLUMN_FILE)) column_table (
      .clk(clk), .enable(look), .address(in_address[COLUMN-1:0]), .word({columns, column_cell, column_weight})
  );

  wire [CELL-1:0] group_cell;
  generate
    if (GROUPED) begin : grouped
      snn_rom #(.WIDTH(CELL), .DEPTH(CHANNELS), .ADDRESS(CHANNEL), .FILE(GROUP_FILE)) group_table (
          .clk(clk), .enable(look), .address(in_address[CHANNEL+ROW+COLUMN-1:ROW+COLUMN]), .word(group_cell)
      );
    end else begin : whole
      assign group_cell = {CELL{1'b0}};
    end
  endgenerate

  // the word whose weights are read
  reg [WORD-1:0] word;
  reg [REACH-1:0] rows_left, columns_left, columns_of_row;
  reg [CELL-1:0] cell_now, cell_of_column, cell_of_row;
  reg [ADDRESS-1:0] weight, weight_of_column, weight_of_row;
  wire [CELL-1:0] first_cell = row_cell + column_cell + group_cell;
  wire [ADDRESS-1:0] first_weight = row_weight + column_weight + {{(ADDRESS - CHANNEL){1'b0}}, channel} * ONE_CHANNEL;
  wire last_word = word == LAST_WORD;
  wire last_column = columns_left == 1;
  assign finished = last_word && last_column && rows_left == 1;

  snn_rom #(.WIDTH(WIDTH), .DEPTH(DEPTH), .ADDRESS(ADDRESS), .FILE(FILE)) weights (
      .clk(clk), .enable(running), .address(weight), .word(add_weights)
  );

  wire [CELL-1:0] next_column_cell = cell_of_column + COLUMN_CELLS[CELL-1:0];
  wire [CELL-1:0] next_row_cell = cell_of_row + ROW_CELLS[CELL-1:0];
  wire [ADDRESS-1:0] next_column_weight = weight_of_column - ONE_COLUMN;
  wire [ADDRESS-1:0] next_row_weight = weight_of_row - ONE_ROW;

  always @(posedge clk) begin
    if (look) channel <= in_address[CHANNEL+ROW+COLUMN-1:ROW+COLUMN];
    looking <= look || (looking && !load);
    if (load) begin
      running <= rows != 0 && columns != 0;
      word <= 0;
      rows_left <= rows;
      columns_left <= columns;
      columns_of_row <= columns;
      cell_now <= first_cell;
      cell_of_column <= first_cell;
      cell_of_row <= first_cell;
      weight <= first_weight;
      weight_of_column <= first_weight;
      weight_of_row <= first_weight;
    end else if (running) begin
      running <= !finished;
      word <= last_word ? 0 : word + 1;
      if (!last_word) begin
        cell_now <= cell_now + 1;
        weight <= weight + 1;
      end else if (!last_column) begin
        columns_left <= columns_left - 1;
        cell_now <= next_column_cell;
        cell_of_column <= next_column_cell;
        weight <= next_column_weight;
        weight_of_column <= next_column_weight;
      end else begin
        rows_left <= rows_left - 1;
        columns_left <= columns_of_row;
        cell_now <= next_row_cell;
        cell_of_column <= next_row_cell;
        cell_of_row <= next_row_cell;
        weight <= next_row_weight;
        weight_of_column <= next_row_weight;
        weight_of_row <= next_row_weight;
      end
    end

    add <= running;
    add_cell <= cell_now;
    step <= end_of && in_kind == 2'd1;
    clear <= end_of && in_kind == 2'd2;
    if (done) waiting <= 0;
    else if (end_of) waiting <= 1;
    if (rst) begin
      waiting <= 1;
      looking <= 0;
      running <= 0;
      add <= 0;
      step <= 0;
      clear <= 0;
    end
  end
endmodule
