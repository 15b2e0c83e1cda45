// The funnel with x_i = z_i exp(v / 2), in (v, z): U = scale_precision v^2 / 2 + |z|^2 / 2.

CONSTANT(scale_precision)

POTENTIAL Sum potential(uint energy) {
  float v = position(0);
  set_gradient(0, scale_precision * v);
  Sum twice = plus(zero_sum(), scale_precision * v * v);
  for (uint d = 1; d < dim; ++d) {
    float z = position(d);
    set_gradient(d, z);
    if (energy > 0) twice = plus(twice, z * z);
  }
  return half_of(twice);
}
