// The memory ceiling of an Adam-like update: four streams read, three written, and next to no arithmetic.
// Benchmarks report every optimizer as a share of this kernel, measured in the same run.

struct StreamState {
  float p, m, v;
};

struct StreamScalars {
  float keep;
};

RULE StreamState stream(StreamState s, float g, StreamScalars h) {
  return StreamState(h.keep * s.p + g, h.keep * s.m + g, h.keep * s.v + g);
}
