// A normal distribution: U = (q - mean)' precisions (q - mean) / 2.

TABLE(mean, dim)
TABLE(precisions, dim * dim)

POTENTIAL Sum potential(uint energy) {
  Sum twice = zero_sum();
  for (uint d = 0; d < dim; ++d) {
    float g = float(0);
    for (uint e = 0; e < dim; ++e) g = g + precisions(d * dim + e) * (position(e) - mean(e));
    set_gradient(d, g);
    if (energy > 0) twice = plus(twice, g * (position(d) - mean(d)));
  }
  return half_of(twice);
}
