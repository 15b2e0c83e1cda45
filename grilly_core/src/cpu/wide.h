// 16 floats at once with AVX-512, for rules that are straight-line float arithmetic.
//
// Compilers vectorise the rules' loops by themselves; this adds what they cannot. Vectors lie on whole cache lines, and
// what comes next is fetched ahead. And most square roots do not occupy the divider: an Adam-like update has a root and
// a division, and on Intel's cores both wait for the same unit, which bounds the kernel in cache. Two roots of three
// are computed with multiplications and additions instead, correctly rounded - the same bits as the instruction
// (tests/test_kernels.py goes through every float).
#pragma once

#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__)
#define GRILLY_WIDE 16

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace grilly {
namespace GRILLY_ISA {

using Wide = __m512;  // gcc's operators work on it, comparison and ?: too

static inline Wide splat(float x) { return _mm512_set1_ps(x); }
static inline Wide load(const float* from) { return _mm512_loadu_ps(from); }
// What the loop will need 2 KiB further on: with so many streams the hardware falls behind by some percent. Never
// beyond the loop's own part, where another thread is at work: taking its lines away costs more than all the rest
// gains.
constexpr std::size_t kAhead = 512;
static inline void fetch(const float* at) { __builtin_prefetch(at + kAhead); }
static inline void store(float* to, Wide x) { _mm512_storeu_ps(to, x); }

// To a whole cache line. Far: past the caches, for what is not read again before it would have left them; the line need
// not be fetched then. finish_stores() before another thread may read it.
template <bool Far>
static inline void store_only(float* to, Wide x) {
  if constexpr (Far)
    _mm512_stream_ps(to, x);
  else
    store(to, x);
}
static inline void finish_stores() { _mm_sfence(); }

// The first elements of a vector; the others are not touched, and read as 0.
using Mask = __mmask16;
static inline Mask first(std::size_t elements) { return static_cast<Mask>((1u << elements) - 1); }
static inline Wide keep(Mask some, Wide x) { return _mm512_maskz_mov_ps(some, x); }
static inline Wide load(Mask some, const float* from) { return _mm512_maskz_loadu_ps(some, from); }
static inline void store(Mask some, float* to, Wide x) { _mm512_mask_storeu_ps(to, some, x); }

// How many of `count` elements come before the next cache line: a vector that lies on two lines costs twice. The state
// lies on its lines as the parameter does (CpuPlan), and so do gradients that came from the same allocator.
static inline std::size_t before_line(const float* at, std::size_t count) {
  return std::min<std::size_t>(count, -(reinterpret_cast<std::uintptr_t>(at) / sizeof *at) % GRILLY_WIDE);
}

// Markstein, "IA-64 and Elementary Functions" (2000), chapter 9: from a reciprocal root good to 14 bits, one coupled
// step to root and half reciprocal, then a correction by the exact residual, which rounds correctly. Zero, infinity,
// NaN, negative numbers, and numbers so small that the residual would underflow, are left to the instruction. (All
// lanes through a mask: gcc 12 warns of uninitialized values in its own header without one.)
static inline Wide sqrt(Wide x) {
  constexpr Mask kAll = 0xffff;
  constexpr int kSmallest = 0x10000000;  // 2^-95
  constexpr int kRange = 0x7f800000 - kSmallest;
  const __m512i offset = _mm512_sub_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(kSmallest));
  const __mmask16 special = _mm512_cmpge_epu32_mask(offset, _mm512_set1_epi32(kRange));
  if (__builtin_expect(special != 0, 0)) return _mm512_maskz_sqrt_ps(kAll, x);
  const Wide half = _mm512_set1_ps(0.5f), y = _mm512_maskz_rsqrt14_ps(kAll, x);
  Wide root = _mm512_mul_ps(x, y), h = _mm512_mul_ps(half, y);
  const Wide r = _mm512_fnmadd_ps(h, root, half);
  root = _mm512_fmadd_ps(root, r, root);
  h = _mm512_fmadd_ps(h, r, h);
  return _mm512_fmadd_ps(_mm512_fnmadd_ps(root, root, x), h, root);
}

// The instruction, for every third vector: the vector units are the narrow place once the roots have left the divider,
// and it has time for so many (4.5 against 4.9 ns per vector of an Adam-like update, and 6.6 with all roots on it).
namespace by_divider {
static inline Wide sqrt(Wide x) { return _mm512_maskz_sqrt_ps(0xffff, x); }
}  // namespace by_divider

}  // namespace GRILLY_ISA
}  // namespace grilly
#endif
