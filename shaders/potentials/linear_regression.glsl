// Linear regression with known noise and a normal prior: U = noise_precision |y - Xq|^2 / 2 + prior_precision |q|^2 / 2.

TABLE(targets, rows)
TABLE(features, rows * dim)
CONSTANT(noise_precision)
CONSTANT(prior_precision)

POTENTIAL Sum potential(uint energy) {
  Sum twice = zero_sum();
  for (uint d = 0; d < dim; ++d) {
    float q = position(d);
    set_gradient(d, prior_precision * q);
    if (energy > 0) twice = plus(twice, prior_precision * q * q);
  }
  for (uint n = 0; n < rows; ++n) {
    float off = -targets(n);
    for (uint d = 0; d < dim; ++d) off = off + features(n * dim + d) * position(d);
    float weighted = noise_precision * off;
    for (uint d = 0; d < dim; ++d) set_gradient(d, gradient(d) + features(n * dim + d) * weighted);
    if (energy > 0) twice = plus(twice, weighted * off);
  }
  return half_of(twice);
}
