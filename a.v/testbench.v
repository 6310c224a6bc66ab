// Sends recordings through the circuit and compares every spike and potential of every layer with the expected ones.
//
// Plain run: as fast as it goes. +stall: random gaps at the input and the output. +wave: writes wave.vcd.
module snn_compare #(
    parameter LAYER = 0, LANES = 1, WORDS = 1, STATE = 8, CHANNEL_WORDS = 1, COLUMNS = 1, IMAGE = 0, FILE = ""
) (
    input wire                   clk,
    input wire                   write,
    input wire [LANES-1:0]       present,
    input wire [LANES-1:0]       spikes,
    input wire [LANES*STATE-1:0] potentials,
    input wire                   add,
    input wire                   step_sent,
    input wire                   recording_sent
);
  integer file, lane, word, step, recording, compared, different;
  reg [63:0] additions;
  reg [LANES*(STATE+1)-1:0] expected;
  reg signed [STATE-1:0] found_potential, expected_potential;
  reg is_spike, is_expected, exhausted;

  initial begin
    file = $fopen(FILE, "r");
    if (file == 0) $display("layer %0d: there is no %0s", LAYER, FILE);  // without a reader of it Verilator 5.006 loses it
    exhausted = 0;
    word = 0;
    step = 0;
    recording = 0;
    compared = 0;
    different = 0;
    additions = 0;
  end

  always @(posedge clk) begin
    if (add) additions = additions + 1;
    if (write) begin
      if ($fscanf(file, "%h", expected) != 1) exhausted = 1;
      for (lane = 0; lane < LANES; lane = lane + 1) if (present[lane]) begin
        found_potential = potentials[lane*STATE+:STATE];
        expected_potential = expected[lane*STATE+:STATE];
        is_spike = spikes[lane];
        is_expected = expected[LANES*STATE+lane];
        compared = compared + 1;
        if (exhausted || found_potential !== expected_potential || is_spike !== is_expected) begin
          if (different == 0) begin
            $write("layer %0d: first difference: recording %0d, step %0d, ", LAYER, recording, step);
            if (IMAGE) $write("neuron %0d, %0d, %0d: ", (word % CHANNEL_WORDS) * LANES + lane,
                              word / CHANNEL_WORDS / COLUMNS, word / CHANNEL_WORDS % COLUMNS);
            else $write("neuron %0d: ", word * LANES + lane);
            if (exhausted) $display("nothing is expected any more");
            else $display("potential %0d and spike %0d, expected %0d and %0d", found_potential, is_spike,
                          expected_potential, is_expected);
          end
          different = different + 1;
        end
      end
      word = word == WORDS - 1 ? 0 : word + 1;
    end
    if (step_sent) step = step + 1;
    if (recording_sent) begin
      step = 0;
      recording = recording + 1;
    end
  end

  task finish;
    begin
      if ($fscanf(file, "%h", expected) == 1) begin
        $display("layer %0d: first difference: recording %0d, step %0d: more is expected", LAYER, recording, step);
        different = different + 1;
      end
      $display("layer %0d: %0d compared, %0d different, %0d words of weights added", LAYER, compared, different, additions);
    end
  endtask
endmodule

module testbench;
  localparam INPUT = 10, OUTPUT = 2, VALUE = 1;
  localparam QUIET = 1400;  // cycles in which nothing is sent or taken: more say that it stands still

  reg clk = 0, rst = 1;
  reg in_valid = 0;
  wire in_ready;
  reg [1:0] in_kind = 0;
  reg [INPUT-1:0] in_address = 0;
  wire out_valid;
  reg out_ready = 0;
  wire [1:0] out_kind;
  wire [OUTPUT-1:0] out_address;
  wire [VALUE-1:0] out_value;

  net dut (.clk(clk), .rst(rst), .in_valid(in_valid), .in_ready(in_ready), .in_kind(in_kind), .in_address(in_address), .out_valid(out_valid), .out_ready(out_ready), .out_kind(out_kind), .out_address(out_address));
  assign out_value = 1'b0;
  snn_compare #(
      .LAYER(0), .LANES(8), .WORDS(4), .STATE(24), .CHANNEL_WORDS(4),
      .COLUMNS(1), .IMAGE(0), .FILE("vectors/layer_0.hex")
  ) layer_0 (
      .clk(clk), .write(dut.neurons_0.write), .present(dut.neurons_0.present), .spikes(dut.neurons_0.spikes),
      .potentials(dut.neurons_0.new_potentials), .add(dut.neurons_0.add),
      .step_sent(dut.neurons_0.out_valid && dut.neurons_0.out_ready && dut.neurons_0.out_kind == 1),
      .recording_sent(dut.neurons_0.out_valid && dut.neurons_0.out_ready && dut.neurons_0.out_kind == 2)
  );
  snn_compare #(
      .LAYER(1), .LANES(3), .WORDS(1), .STATE(20), .CHANNEL_WORDS(1),
      .COLUMNS(1), .IMAGE(0), .FILE("vectors/layer_1.hex")
  ) layer_1 (
      .clk(clk), .write(dut.neurons_1.write), .present(dut.neurons_1.present), .spikes(dut.neurons_1.spikes),
      .potentials(dut.neurons_1.new_potentials), .add(dut.neurons_1.add),
      .step_sent(dut.neurons_1.out_valid && dut.neurons_1.out_ready && dut.neurons_1.out_kind == 1),
      .recording_sent(dut.neurons_1.out_valid && dut.neurons_1.out_ready && dut.neurons_1.out_kind == 2)
  );

  integer inputs, outputs, sent, answered, different, quiet;
  integer cycles, taken, least, most, total;
  integer begun [0:255];  // cycle of the first token of a recording, by its number
  reg stall, exhausted, ended, between, failed;
  reg [INPUT+1:0] next_input;
  reg [VALUE+OUTPUT+1:0] answer, expected;

  initial begin
    stall = $test$plusargs("stall") != 0;
    if ($test$plusargs("wave") != 0) begin
      $dumpfile("wave.vcd");
      $dumpvars;
    end
    inputs = $fopen("vectors/input.hex", "r");
    outputs = $fopen("vectors/output.hex", "r");
    if (inputs == 0 || outputs == 0) begin
      $display("FAIL: no vectors/ here. Start in the folder of testbench.v, with vectors.");
      $finish;
    end
    sent = 0;
    answered = 0;
    different = 0;
    quiet = 0;
    cycles = 0;
    least = 0;
    most = 0;
    total = 0;
    exhausted = 0;
    ended = 0;
    between = 1;
    failed = 0;
  end

  always #5 clk = !clk;

  always @(posedge clk) begin
    cycles = cycles + 1;
    if (cycles == 3) rst <= 0;

    // the input: the next token once the last one is taken
    if (in_valid && in_ready) begin
      if (between) begun[sent % 256] = cycles;
      between = in_kind == 2;
      if (in_kind == 2) sent = sent + 1;
    end
    if (!rst && (!in_valid || in_ready)) begin
      in_valid <= 0;
      if (!exhausted && !(stall && $random % 3 == 0)) begin
        if ($fscanf(inputs, "%h", next_input) != 1) exhausted = 1;
        in_valid <= !exhausted;
        in_kind <= next_input[INPUT+1:INPUT];
        in_address <= next_input[INPUT-1:0];
      end
    end

    // the output
    out_ready <= !rst && !(stall && $random % 3 != 0);
    if (out_valid && out_ready) begin
      answer = {out_value, out_kind, out_address};
      if (out_kind != 0) answer = {{VALUE{1'b0}}, out_kind, {OUTPUT{1'b0}}};
      if ($fscanf(outputs, "%h", expected) != 1) ended = 1;
      if (ended || answer !== expected) begin
        if (different == 0) $display("output: first difference: recording %0d: %h, expected %h", answered, answer, expected);
        different = different + 1;
      end
      if (out_kind == 2) begin
        taken = cycles - begun[answered % 256] + 1;
        total = total + taken;
        if (answered == 0 || taken < least) least = taken;
        if (taken > most) most = taken;
        answered = answered + 1;
      end
    end

    quiet = rst || (in_valid && in_ready) || (out_valid && out_ready) ? 0 : quiet + 1;
    if (quiet > QUIET || (exhausted && !in_valid && answered == sent)) begin
      failed = quiet > QUIET || different != 0 || answered == 0;
      if (quiet > QUIET) $display("it stands still at recording %0d", answered);
      if ($fscanf(outputs, "%h", expected) == 1) begin
        failed = 1;
        $display("output: first difference: recording %0d: more is expected", answered);
      end
      layer_0.finish;
      if (layer_0.different != 0) failed = 1;
      layer_1.finish;
      if (layer_1.different != 0) failed = 1;
      $display("output: %0d different", different);
      $display("cycles: %0d recordings, %0d least, %0d in all, %0d most", answered, least, total, most);
      if (failed) begin
        $display("FAIL");
        $stop;
      end else begin
        $display("PASS");
        $finish;
      end
    end
  end
endmodule
