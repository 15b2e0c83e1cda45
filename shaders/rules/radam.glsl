// RAdam: Liu et al., "On the variance of the adaptive learning rate and beyond" (2020), in torch.optim.RAdam's
// arithmetic.
//
// With too few gradients for a variance (rectified = 0) step = lr / (1 - beta1^t); later (rectified = 1) that times
// r sqrt(1 - beta2^t), where r is the paper's rectification. c1, c2 as in adamw.glsl, keep and decay as in nadam.glsl; to
// maximise, c1 and decay are negated.

struct RAdamState {
  float p, m, v;
};

struct RAdamScalars {
  float beta1, c1, beta2, c2, step, rectified, eps, keep, decay;
};

RULE RAdamState radam(RAdamState s, float g, RAdamScalars h) {
  float grad = h.decay == 0 ? g : g + h.decay * s.p;
  float m = h.beta1 * s.m + h.c1 * grad;
  float v = h.beta2 * s.v + h.c2 * grad * grad;
  float change = h.rectified == 0 ? m : m / (sqrt(v) + h.eps);
  return RAdamState(s.p * h.keep - h.step * change, m, v);
}
