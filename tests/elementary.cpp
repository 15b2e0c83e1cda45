// exp, log(1 + y) and softplus as potentials have them, and activations: numbers from stdin, results to stdout, in both
// precisions side by side as chains are.
#include <cstdio>
#include <cstring>

#include "trajectory_parts.h"

namespace grilly {
namespace GRILLY_ISA {
namespace f32 {
using Real = float;
#define float Row<Real>
#define bool Chosen<Real>
#include "lib/elementary.glsl"

#include "lib/activations.glsl"
#undef bool
#undef float
}  // namespace f32
namespace f64 {
using Real = double;
#define float Row<Real>
#define bool Chosen<Real>
#include "lib/elementary.glsl"

#include "lib/activations.glsl"
#undef bool
#undef float
}  // namespace f64

template <class T, class Function>
static int apply(const Function& function) {
  T in[kChains], out[kChains];
  while (std::fread(in, sizeof in, 1, stdin) == 1) {
    function(Row<T>::from(in)).to(out);
    std::fwrite(out, sizeof out, 1, stdout);
  }
  return 0;
}

static int run(const char* name, bool is_double) {
  const auto is = [&](const char* other) { return std::strcmp(name, other) == 0; };
  const auto in_both = [&](auto of_float, auto of_double) {
    return is_double ? apply<double>(of_double) : apply<float>(of_float);
  };
#define TRY(f) \
  if (is(#f)) return in_both([](auto x) { return f32::f(x); }, [](auto x) { return f64::f(x); })
#define TRY_BOTH(f)                                                           \
  TRY(f##_value);                                                             \
  if (is(#f "_slope"))                                                        \
  return in_both([](auto x) { return f32::f##_slope(x, f32::f##_value(x)); }, \
                 [](auto x) { return f64::f##_slope(x, f64::f##_value(x)); })
  TRY(exponential);
  TRY(log_one_plus);
  TRY(softplus);
  TRY_BOTH(hard_sigmoid);
  TRY_BOTH(identity);
  TRY_BOTH(leaky_relu);
  TRY_BOTH(relu);
  TRY_BOTH(sigmoid);
  TRY_BOTH(softplus);
  TRY_BOTH(tanh);
  return 1;
}
}  // namespace GRILLY_ISA
}  // namespace grilly

int main(int, char** arguments) { return grilly::GRILLY_ISA::run(arguments[1], arguments[2][0] == '8'); }
