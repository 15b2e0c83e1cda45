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

// What the loop will read a little later; see fetch() in wide.h.
template <class... Streams>
static inline void fetch_line(std::size_t i, std::size_t count, const Streams*... at) {
#if defined(GRILLY_WIDE)
  if (i + kAhead < count) (__builtin_prefetch(at + i + kAhead), ...);
#else
  static_cast<void>(i), static_cast<void>(count), (static_cast<void>(at), ...);
#endif
}

// Line by line, so that what comes next is fetched ahead. element(k) makes one element, the streams are what it reads.
template <class Real, class Element, class... Streams>
static inline void each(std::size_t count, const Element& element, const Streams*... streams) {
  constexpr std::size_t kLine = 64 / sizeof(Real);
  std::size_t i = 0;
  for (; i + kLine <= count; i += kLine) {
    fetch_line(i, count, streams...);
    GRILLY_NO_LOOP_DEPENDENCE
    for (std::size_t k = 0; k < kLine; ++k) element(i + k);
  }
  for (; i < count; ++i) element(i);
}

// weight and anchor may be missing, both.
template <class Mix, class Real>
static void mix(const double* numbers, const void* gradient, const void* parameter, const void* weight,
                const void* anchor, void* mixed, std::size_t count) {
  const Mix m{static_cast<Real>(numbers[0]), static_cast<Real>(numbers[1]), static_cast<Real>(numbers[2])};
  auto *const g = static_cast<const Real*>(gradient), *const p = static_cast<const Real*>(parameter);
  auto *const w = static_cast<const Real*>(weight), *const a = static_cast<const Real*>(anchor);
  auto* const out = static_cast<Real*>(mixed);
  if (w)
    each<Real>(
        count, [&](std::size_t i) { out[i] = anchored(clipped(g[i], m), p[i], w[i], a[i], m); }, g, p, w, a);
  else
    each<Real>(
        count, [&](std::size_t i) { out[i] = clipped(g[i], m); }, g);
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
