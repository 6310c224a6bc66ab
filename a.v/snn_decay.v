// What is left of a state after a step: x * kept / 4096, rounded toward zero, or x - (x >> kept), rounded down.
module snn_decay #(
    parameter STATE = 24,
    parameter KEPT = 13,
    parameter SHIFT = 0
) (
    input  wire signed [STATE-1:0] state,
    input  wire        [KEPT-1:0]  kept,   // 0..4096, or where SHIFT 0..12 and 15 for no decay at all
    output wire signed [STATE-1:0] left
);
  generate
    if (SHIFT) begin : by_shift
      wire signed [STATE-1:0] lost = state >>> kept;
      assign left = &kept ? state : state - lost;
    end else begin : by_product
      localparam WIDE = STATE + KEPT + 1;
      wire signed [WIDE-1:0] product = $signed({{(KEPT + 1){state[STATE-1]}}, state})
                                     * $signed({{(STATE + 1){1'b0}}, kept});
      wire signed [WIDE-1:0] toward_zero = product + $signed({{(WIDE - 12){1'b0}}, {12{state[STATE-1]}}});
      assign left = toward_zero[STATE+11:12];
      wire unused_bits = &{toward_zero[WIDE-1:STATE+12], toward_zero[11:0]};
    end
  endgenerate
endmodule
