// Logistic regression with a normal prior: U = sum of log(1 + exp(-s_n x_n'q)) + prior_precision |q|^2 / 2. The rows of
// features are s_n x_n already, with s_n = 1 or -1 for the two classes.

TABLE(features, rows * dim)
CONSTANT(prior_precision)

POTENTIAL Sum potential(uint energy) {
  Sum u = zero_sum();
  for (uint d = 0; d < dim; ++d) {
    float q = position(d);
    set_gradient(d, prior_precision * q);
    if (energy > 0) u = plus(u, prior_precision * q * q * (float(1) / 2));
  }
  for (uint n = 0; n < rows; ++n) {
    float margin = float(0);
    for (uint d = 0; d < dim; ++d) margin = margin + features(n * dim + d) * position(d);
    float e = exponential(-magnitude(margin));
    float miss = mix(float(1), e, margin > float(0)) / (1 + e);
    for (uint d = 0; d < dim; ++d) set_gradient(d, gradient(d) - features(n * dim + d) * miss);
    if (energy > 0) u = plus(plus(u, mix(-margin, float(0), margin > float(0))), log_one_plus(e));
  }
  return u;
}
