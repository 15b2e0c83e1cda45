// Eight schools, non-centred: Rubin, "Estimation in parallel randomized experiments" (1981). q = (mu, log tau, t_1 ... t_8):
// mu is N(0, 5^2), tau half-Cauchy with scale 5, t_j standard normal, and effect y_j is N(mu + tau t_j, error_j^2).

DIMENSIONS(10)
TABLE(effects, 8)
TABLE(errors, 8)

POTENTIAL Sum potential(uint energy) {
  float mu = position(0), log_tau = position(1);
  float tau = exponential(log_tau);
  Sum u = plus(zero_sum(), mu * mu * (float(1) / 50));
  float g_mu = mu * (float(1) / 25), g_tau = float(0);
  for (uint j = 0; j < 8; ++j) {
    float t = position(2 + j);
    float off = mu + tau * t - effects(j);
    float pull = off / (errors(j) * errors(j));
    g_mu = g_mu + pull;
    g_tau = g_tau + pull * t;
    set_gradient(2 + j, t + tau * pull);
    if (energy > 0) u = plus(plus(u, t * t * (float(1) / 2)), pull * off * (float(1) / 2));
  }
  // log(1 + (tau / 5)^2) - log tau, and its derivative by log tau.
  float x = 2 * log_tau - float(310187265) / 96365092;  // 2 log 5
  set_gradient(0, g_mu);
  set_gradient(1, g_tau * tau + 2 / (1 + exponential(-x)) - 1);
  return plus(plus(u, softplus(x)), -log_tau);
}
