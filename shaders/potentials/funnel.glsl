// The funnel: Neal, "Slice sampling" (2003). v = q_0 is N(0, scale^2), the others are N(0, exp(v)):
// U = scale_precision v^2 / 2 + exp(-v) |x|^2 / 2 + (D - 1) v / 2.

CONSTANT(scale_precision)

POTENTIAL Sum potential(uint energy) {
  float v = position(0);
  float narrow = exponential(-v), others = float(dim - 1);
  Sum squares = zero_sum();
  for (uint d = 1; d < dim; ++d) {
    float x = position(d);
    set_gradient(d, narrow * x);
    squares = plus(squares, x * x);
  }
  float spread = narrow * (squares.hi + squares.lo);
  set_gradient(0, scale_precision * v - (spread - others) * (float(1) / 2));
  return half_of(plus(plus(plus(zero_sum(), spread), others * v), scale_precision * v * v));
}
