// A banana: U = (1 - x)^2 / 2 + 5 (y - x^2)^2; x is N(1, 1), y is N(x^2, 1 / 10).

DIMENSIONS(2)

POTENTIAL Sum potential(uint energy) {
  float x = position(0), y = position(1);
  float off = y - x * x, left = x - 1;
  set_gradient(0, left - 20 * x * off);
  set_gradient(1, 10 * off);
  return plus(plus(zero_sum(), left * left * (float(1) / 2)), 5 * off * off);
}
