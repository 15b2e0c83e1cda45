// Independent normal numbers: U = sum of precisions (q - mean)^2 / 2.

TABLE(mean, dim)
TABLE(precisions, dim)

POTENTIAL Sum potential(uint energy) {
  Sum twice = zero_sum();
  for (uint d = 0; d < dim; ++d) {
    float off = position(d) - mean(d);
    float g = precisions(d) * off;
    set_gradient(d, g);
    if (energy > 0) twice = plus(twice, g * off);
  }
  return half_of(twice);
}
