// Loops for what happens to a gradient before its rule and to a parameter's path after it (shaders/lib/gradient.glsl),
// over short stretches that stay in the first cache level.
#pragma once

#include <cstddef>

#include "glsl.h"

namespace grilly {
namespace GRILLY_ISA {
namespace f32 {
#include "lib/gradient.glsl"
}  // namespace f32
namespace f64 {
#define float double
#include "lib/gradient.glsl"
#undef float
}  // namespace f64

// weight and anchor may be missing, both.
template <class Mix, class Real>
static void mix(const double* numbers, const void* gradient, const void* parameter, const void* weight,
                const void* anchor, void* mixed, std::size_t count) {
  const Mix m{static_cast<Real>(numbers[0]), static_cast<Real>(numbers[1]), static_cast<Real>(numbers[2])};
  auto *const g = static_cast<const Real*>(gradient), *const p = static_cast<const Real*>(parameter);
  auto *const w = static_cast<const Real*>(weight), *const a = static_cast<const Real*>(anchor);
  auto* const out = static_cast<Real*>(mixed);
  GRILLY_NO_LOOP_DEPENDENCE
  for (std::size_t i = 0; i < count; ++i) out[i] = clipped(g[i], m);
  if (!w) return;
  GRILLY_NO_LOOP_DEPENDENCE
  for (std::size_t i = 0; i < count; ++i) out[i] = anchored(out[i], p[i], w[i], a[i], m);
}

template <class Real>
static void trace(void* integral, const void* was, const void* is, const void* gradient, std::size_t count) {
  auto* const omega = static_cast<Real*>(integral);
  auto *const before = static_cast<const Real*>(was), *const after = static_cast<const Real*>(is);
  auto* const g = static_cast<const Real*>(gradient);
  GRILLY_NO_LOOP_DEPENDENCE
  for (std::size_t i = 0; i < count; ++i) {
    if constexpr (sizeof(Real) == 4)
      omega[i] = f32::traced(omega[i], before[i], after[i], g[i]);
    else
      omega[i] = f64::traced(omega[i], before[i], after[i], g[i]);
  }
}

}  // namespace GRILLY_ISA
}  // namespace grilly
