// How a chunk of elements is added up, so that the sum depends on nothing but the elements' positions: 16 classes of
// elements (position modulo 16) side by side; within a class 4, then 8, then 8 numbers in a row; at the end the classes
// by halves. shaders/sums.comp.in adds in the same order, and so does kernels/numpy_device.py.
#pragma once

#include <cstddef>

#include "wide.h"

namespace grilly {
namespace GRILLY_ISA {

constexpr std::size_t kClasses = 16;

// One number of every class.
template <class Real>
struct Sixteen {
  Real of[kClasses] = {};
  Sixteen& operator+=(const Sixteen& other) {
    for (std::size_t c = 0; c < kClasses; ++c) of[c] += other.of[c];
    return *this;
  }
};

template <class Real>
static inline void spread(const Sixteen<Real>& sum, Real* to) {
  for (std::size_t c = 0; c < kClasses; ++c) to[c] = sum.of[c];
}
#if defined(GRILLY_WIDE)
static inline void spread(Wide sum, float* to) { store(to, sum); }
#endif

// four(i, sums) adds the 64 elements from i on, part(i, there, sums) at most 16.
template <class Real, class Classes, std::size_t Sums, class Four, class Part>
static inline void sum_chunk(std::size_t count, const Four& four, const Part& part, double* sums) {
  Classes total[Sums] = {};
  for (std::size_t a = 0, i = 0; a < 8 && i < count; ++a) {
    Classes eight[Sums] = {};
    for (std::size_t b = 0; b < 8 && i < count; ++b, i += 4 * kClasses) {
      Classes run[Sums] = {};
      if (i + 4 * kClasses <= count)
        four(i, run);
      else
        for (std::size_t at = i; at < count; at += kClasses) part(at, count - at, run);
      for (std::size_t s = 0; s < Sums; ++s) eight[s] += run[s];
    }
    for (std::size_t s = 0; s < Sums; ++s) total[s] += eight[s];
  }
  for (std::size_t s = 0; s < Sums; ++s) {
    Real of[kClasses];
    spread(total[s], of);
    for (std::size_t width = kClasses / 2; width > 0; width /= 2)
      for (std::size_t c = 0; c < width; ++c) of[c] += of[c + width];
    sums[s] = static_cast<double>(of[0]);
  }
}

}  // namespace GRILLY_ISA
}  // namespace grilly
