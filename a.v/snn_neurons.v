// The neurons of a population, LANES at a time: the sums that arrive, and at the end of a step states and spikes.
module snn_neurons #(
    parameter LANES = 1,
    parameter LAST_WORD = 0,      // words have LANES neurons each
    parameter WORD = 1,           // bits of a word's number
    parameter LAST_CELL = 0,      // cells are words of sums: one for each word and step that spikes are under way to
    parameter CELL = 1,           // bits of a cell's address: {step, word}
    parameter NEXT_STEP = 0,      // from a cell to that of the step after
    parameter WEIGHT = 8,         // bits of one weight
    parameter SUM = 8, UNIT = 6, CURRENT = 24, STATE = 24, LEVEL = 24, KEPT = 13, WIDE = 32, HIGHEST = 23,
    parameter SHIFT = 0, HELD = 1, WRAP_SUM = 0, WRAP = 0, SATURATE = 1, SATURATE_POTENTIAL = 1, RESET = 1,
    parameter LAST_OF_CHANNELS = 0,  // among the words at one position of an image; LAST_WORD without an image
    parameter LAST_LANES = 1,     // neurons in the last of these
    parameter ADDRESS = 1,        // bits of the address of a spike that is sent
    parameter IMAGE = 0,          // addresses are {channel, row, column}, else they count the neurons
    parameter CHANNEL = 1, ROW = 1, COLUMN = 1, LAST_COLUMN = 0,
    parameter READOUT = 0         // every potential is sent in every step, and no spike
) (
    input  wire                     clk,
    input  wire                     rst,
    input  wire                     add,             // the weights to the sums of a cell
    input  wire [CELL-1:0]          add_cell,        // counted from those of this step
    input  wire [LANES*WEIGHT-1:0]  add_weights,
    input  wire                     step,
    input  wire                     clear,
    output reg                      done,            // with a step, or with clearing
    output wire                     move,
    output wire [WORD-1:0]          parameter_word,  // whose parameters are to come one cycle later, where `move`
    input  wire [LANES*LEVEL-1:0]   bias,
    input  wire [LANES*LEVEL-1:0]   threshold,
    input  wire [LANES*KEPT-1:0]    current_kept,
    input  wire [LANES*KEPT-1:0]    potential_kept,
    output wire                     out_valid,
    input  wire                     out_ready,
    output wire [1:0]               out_kind,        // 0: spike (or potential), 1: end of step, 2: end of recording
    output wire [ADDRESS-1:0]       out_address,
    output wire signed [STATE-1:0]  out_value
);
  localparam [1:0] CLEARING = 2'd0, ADDING = 2'd1, UPDATING = 2'd2, SENDING = 2'd3;
  reg [1:0] state;
  reg ending;              // a recording, rather than a step
  reg [CELL-1:0] now;      // the first cell of this step
  reg [CELL-1:0] counter;  // of the words that are read or cleared

  // three stages of an update: a word is read, decays, is written; all wait while its spikes are sent
  reg reading, decaying, writing;
  reg [LANES-1:0] pending;  // of the word behind these: lanes that are still to be sent
  wire [LANES-1:0] pending_after = pending & (pending - 1);
  assign move = pending == 0 || (out_ready && pending_after == 0);

  // sums: read in one cycle, with the weights added in the next
  reg adding, added;
  reg [LANES*WEIGHT-1:0] adding_weights;
  reg [LANES*SUM-1:0] added_sums;
  reg [CELL-1:0] cell_read, cell_added;
  wire [LANES*SUM-1:0] read_sums;
  wire [LANES*SUM-1:0] sums = added && cell_added == cell_read ? added_sums : read_sums;
  wire [LANES*SUM-1:0] new_sums;
  wire read = reading ? move : add;
  wire [CELL-1:0] read_cell = (reading ? counter : add_cell) + now;
  wire clearing = state == CLEARING;

  snn_ram #(.WIDTH(LANES * SUM), .DEPTH(LAST_CELL + 1), .ADDRESS(CELL)) sum_memory (
      .clk(clk), .read(read), .read_address(read_cell), .read_word(read_sums),
      .write(clearing || adding || (decaying && move)), .write_address(clearing ? counter : cell_read),
      .write_word(adding ? new_sums : {LANES * SUM{1'b0}})
  );

  // states
  reg [WORD-1:0] word_decaying, word_writing;
  wire write = writing && move;
  wire [WORD-1:0] write_word = clearing ? counter[WORD-1:0] : word_writing;
  wire [LANES*STATE-1:0] potentials, new_potentials;
  wire [LANES*CURRENT-1:0] currents, new_currents;
  wire [LANES-1:0] spikes;

  snn_ram #(.WIDTH(LANES * STATE), .DEPTH(LAST_WORD + 1), .ADDRESS(WORD)) potential_memory (
      .clk(clk), .read(reading && move), .read_address(counter[WORD-1:0]), .read_word(potentials),
      .write(clearing || write), .write_address(write_word),
      .write_word(clearing ? {LANES * STATE{1'b0}} : new_potentials)
  );

  generate
    if (HELD) begin : held
      snn_ram #(.WIDTH(LANES * CURRENT), .DEPTH(LAST_WORD + 1), .ADDRESS(WORD)) current_memory (
          .clk(clk), .read(reading && move), .read_address(counter[WORD-1:0]), .read_word(currents),
          .write(clearing || write), .write_address(write_word),
          .write_word(clearing ? {LANES * CURRENT{1'b0}} : new_currents)
      );
    end else begin : fleeting
      assign currents = {LANES * CURRENT{1'b0}};
      wire unused_currents = &new_currents;
    end
  endgenerate

  genvar lane;
  generate
    for (lane = 0; lane < LANES; lane = lane + 1) begin : lanes
      wire [WEIGHT-1:0] weight = adding_weights[lane*WEIGHT+:WEIGHT];
      assign new_sums[lane*SUM+:SUM] = sums[lane*SUM+:SUM] + {{(SUM - WEIGHT){weight[WEIGHT-1]}}, weight};
      snn_neuron #(
          .SUM(SUM), .UNIT(UNIT), .CURRENT(CURRENT), .STATE(STATE), .LEVEL(LEVEL), .KEPT(KEPT), .WIDE(WIDE),
          .HIGHEST(HIGHEST), .SHIFT(SHIFT), .HELD(HELD), .WRAP_SUM(WRAP_SUM), .WRAP(WRAP), .SATURATE(SATURATE),
          .SATURATE_POTENTIAL(SATURATE_POTENTIAL), .RESET(RESET)
      ) neuron (
          .clk(clk), .move(move), .sum(read_sums[lane*SUM+:SUM]), .current(currents[lane*CURRENT+:CURRENT]),
          .potential(potentials[lane*STATE+:STATE]), .bias(bias[lane*LEVEL+:LEVEL]),
          .threshold(threshold[lane*LEVEL+:LEVEL]), .current_kept(current_kept[lane*KEPT+:KEPT]),
          .potential_kept(potential_kept[lane*KEPT+:KEPT]), .next_current(new_currents[lane*CURRENT+:CURRENT]),
          .next_potential(new_potentials[lane*STATE+:STATE]), .spike(spikes[lane])
      );
    end
  endgenerate

  // parameters are the same at all positions of an image
  reg [WORD-1:0] channel_word_read, channel_word_written;
  assign parameter_word = channel_word_read;

  // what is sent: the lowest pending lane
  wire last_of_channels = channel_word_written == LAST_OF_CHANNELS;
  wire [LANES-1:0] present = last_of_channels ? ~({LANES{1'b1}} << LAST_LANES) : {LANES{1'b1}};
  reg [LANES*STATE-1:0] pending_potentials;
  integer index;
  reg [ADDRESS-1:0] first_lane;
  always @* begin
    first_lane = 0;
    for (index = LANES - 1; index >= 0; index = index - 1) if (pending[index]) first_lane = index[ADDRESS-1:0];
  end

  assign out_valid = pending != 0 || state == SENDING;
  assign out_kind = state != SENDING ? 2'd0 : ending ? 2'd2 : 2'd1;
  assign out_value = pending_potentials[first_lane*STATE+:STATE];

  generate
    if (IMAGE) begin : image
      reg [CHANNEL-1:0] channel, pending_channel;
      reg [ROW-1:0] row, pending_row;
      reg [COLUMN-1:0] column, pending_column;
      always @(posedge clk) begin
        if (write) begin
          pending_channel <= channel;
          pending_row <= row;
          pending_column <= column;
          channel <= last_of_channels ? 0 : channel + LANES[CHANNEL-1:0];
          if (last_of_channels) column <= column == LAST_COLUMN ? 0 : column + 1;
          if (last_of_channels && column == LAST_COLUMN) row <= row + 1;
        end
        if (step) begin
          channel <= 0;
          row <= 0;
          column <= 0;
        end
      end
      assign out_address = {pending_channel + first_lane[CHANNEL-1:0], pending_row, pending_column};
    end else begin : in_a_row
      reg [ADDRESS-1:0] address, pending_address;
      always @(posedge clk) begin
        if (write) begin
          pending_address <= address;
          address <= address + (last_of_channels ? LAST_LANES[ADDRESS-1:0] : LANES[ADDRESS-1:0]);
        end
        if (step) address <= 0;
      end
      assign out_address = pending_address + first_lane;
    end
  endgenerate

  always @(posedge clk) begin
    adding <= add;
    adding_weights <= add_weights;
    if (read) cell_read <= read_cell;
    added <= adding;
    added_sums <= new_sums;
    cell_added <= cell_read;

    if (move) begin
      decaying <= reading;
      word_decaying <= counter[WORD-1:0];
      writing <= decaying;
      word_writing <= word_decaying;
      pending <= !writing ? 0 : READOUT ? present : spikes & present;
      pending_potentials <= new_potentials;
      if (reading) channel_word_read <= channel_word_read == LAST_OF_CHANNELS ? 0 : channel_word_read + 1;
      if (writing) channel_word_written <= last_of_channels ? 0 : channel_word_written + 1;
    end else if (out_ready) pending <= pending_after;

    done <= 0;
    case (state)
      CLEARING: begin
        counter <= counter + 1;
        if (counter == LAST_CELL) begin
          state <= ending ? SENDING : ADDING;
          done <= !ending;
        end
      end
      ADDING: begin
        counter <= 0;
        channel_word_read <= 0;
        channel_word_written <= 0;
        ending <= clear;
        if (clear) state <= CLEARING;
        if (clear) now <= 0;
        if (step) state <= UPDATING;
        if (step) reading <= 1;
      end
      UPDATING: begin
        if (reading && move) counter <= counter + 1;
        if (move && counter == LAST_WORD) reading <= 0;
        if (!reading && !decaying && !writing && pending == 0) state <= SENDING;
      end
      SENDING: if (out_ready) begin
        state <= ADDING;
        done <= 1;
        if (!ending) now <= now + NEXT_STEP;
      end
    endcase

    if (rst) begin
      state <= CLEARING;
      ending <= 0;
      counter <= 0;
      now <= 0;
      pending <= 0;
      done <= 0;
      adding <= 0;
      added <= 0;
      reading <= 0;
      decaying <= 0;
      writing <= 0;
    end
  end
endmodule
