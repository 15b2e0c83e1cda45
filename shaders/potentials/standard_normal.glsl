// Independent standard normal numbers: U = q'q / 2.

POTENTIAL Sum potential(uint energy) {
  Sum twice = zero_sum();
  for (uint d = 0; d < dim; ++d) {
    float q = position(d);
    set_gradient(d, q);
    if (energy > 0) twice = plus(twice, q * q);
  }
  return half_of(twice);
}
