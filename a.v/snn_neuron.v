// One lane: the step of a neuron, in two cycles. The potential is kept as it is before its reset, so that the spike of
// the step before is known from it.
module snn_neuron #(
    parameter SUM = 8,        // bits of a sum of weights
    parameter UNIT = 6,       // binary places of a state below a weight
    parameter CURRENT = 24,   // bits of a synaptic current
    parameter STATE = 24,     // ... of a potential
    parameter LEVEL = 24,     // ... of a bias and a threshold, which count steps of a state
    parameter KEPT = 13,
    parameter WIDE = 32,      // bits in which any result fits
    parameter HIGHEST = 23,   // a register holds 1 - 2^HIGHEST .. 2^HIGHEST - 1
    parameter SHIFT = 0,      // decays are shifts
    parameter HELD = 1,       // a synaptic current is held from step to step
    parameter WRAP_SUM = 0,   // a sum is two's complement of 24 bits
    parameter WRAP = 0,       // a current too large comes in at the other end
    parameter SATURATE = 1,   // ... or is the largest
    parameter SATURATE_POTENTIAL = 1,
    parameter RESET = 1       // 0: none, 1: zero, 2: zero_all, 3: subtract, 4: subtract_before_leak
) (
    input  wire                      clk,
    input  wire                      move,
    input  wire signed [SUM-1:0]     sum,
    input  wire signed [CURRENT-1:0] current,
    input  wire signed [STATE-1:0]   potential,
    input  wire signed [LEVEL-1:0]   bias,
    input  wire signed [LEVEL-1:0]   threshold,
    input  wire        [KEPT-1:0]    current_kept,
    input  wire        [KEPT-1:0]    potential_kept,
    output wire signed [CURRENT-1:0] next_current,    // one cycle after the inputs
    output wire signed [STATE-1:0]   next_potential,
    output wire                      spike
);
  // the first cycle: what is left of the step before
  wire signed [WIDE-1:0] potential_wide = {{(WIDE - STATE){potential[STATE-1]}}, potential};
  wire signed [WIDE-1:0] threshold_now = {{(WIDE - LEVEL){threshold[LEVEL-1]}}, threshold};
  wire spiked = potential_wide > threshold_now;
  wire signed [STATE-1:0] lowered = potential - threshold_now[STATE-1:0];
  wire signed [STATE-1:0] carried = !spiked ? potential : RESET == 1 ? 0 : RESET == 4 ? lowered : potential;
  wire signed [STATE-1:0] potential_left;
  snn_decay #(.STATE(STATE), .KEPT(KEPT), .SHIFT(SHIFT)) potential_decay (
      .state(carried), .kept(potential_kept), .left(potential_left)
  );

  reg signed [WIDE-1:0] left, arriving, level;
  reg signed [WIDE-1:0] offset;  // bias, and what a reset takes
  reg cleared;
  always @(posedge clk) if (move) begin
    left <= {{(WIDE - STATE){potential_left[STATE-1]}}, potential_left};
    level <= threshold_now;
    offset <= {{(WIDE - LEVEL){bias[LEVEL-1]}}, bias} - (RESET == 3 && spiked ? threshold_now : 0);
    cleared <= RESET == 2 && spiked;
  end

  generate
    if (WRAP_SUM) begin : of_24_bits
      always @(posedge clk) if (move) arriving <= {{(WIDE - 24 - UNIT){sum[23]}}, sum[23:0], {UNIT{1'b0}}};
    end else begin : whole
      always @(posedge clk) if (move) arriving <= {{(WIDE - SUM - UNIT){sum[SUM-1]}}, sum, {UNIT{1'b0}}};
    end
  endgenerate

  // the second cycle: what arrives
  wire signed [WIDE-1:0] total_current;
  generate
    if (HELD) begin : held
      wire signed [CURRENT-1:0] current_left;
      snn_decay #(.STATE(CURRENT), .KEPT(KEPT), .SHIFT(SHIFT)) current_decay (
          .state(current), .kept(current_kept), .left(current_left)
      );
      reg signed [WIDE-1:0] left_current;
      always @(posedge clk) if (move) left_current <= {{(WIDE - CURRENT){current_left[CURRENT-1]}}, current_left};
      assign total_current = left_current + arriving;
    end else begin : fleeting
      assign total_current = arriving;
      wire unused_current = &{current, current_kept};
    end
  endgenerate

  localparam signed [WIDE-1:0] END = 1 << HIGHEST;
  wire signed [WIDE-1:0] current_now =
      WRAP && total_current > END ? total_current - 2 * END :
      WRAP && total_current <= -END ? total_current + 2 * END :
      SATURATE && total_current >= END ? END - 1 :
      SATURATE && total_current <= -END ? 1 - END : total_current;
  wire signed [WIDE-1:0] total = cleared ? 0 : left + current_now + offset;
  wire signed [WIDE-1:0] potential_now =
      SATURATE_POTENTIAL && total >= END ? END - 1 : SATURATE_POTENTIAL && total <= -END ? 1 - END : total;

  assign next_current = current_now[CURRENT-1:0];
  assign next_potential = potential_now[STATE-1:0];
  assign spike = potential_now > level;
endmodule
