// Stochastic gradient descent without momentum, in torch.optim.SGD's arithmetic.
//
// step = lr, decay = weight_decay; both negated to maximise. Without decay the gradient is taken as it is: 0 * p would
// be NaN where p is infinite.

struct SgdState {
  float p;
};

struct SgdScalars {
  float step, decay;
};

RULE SgdState sgd(SgdState s, float g, SgdScalars h) {
  float grad = h.decay == 0 ? g : g + h.decay * s.p;
  return SgdState(s.p - h.step * grad);
}
