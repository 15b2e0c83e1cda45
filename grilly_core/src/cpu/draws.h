// Random numbers for a stretch of elements: Philox over vectors of 64-bit lanes, each with a word in its low half,
// where a product of two words is one instruction; then the transform, which compilers vectorise by themselves.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "glsl.h"
#include "grilly/rules.h"

#if defined(__GNUC__) && defined(__SSE2__)
#include <immintrin.h>
#endif

namespace grilly {
namespace GRILLY_ISA {

using uint = std::uint32_t;

#if defined(__GNUC__) && defined(__SSE2__)
#if defined(__AVX512F__)
using Word = __m512i;
static inline Word product(Word a, Word b) { return _mm512_maskz_mul_epu32(0xff, a, b); }
static inline Word high_half(Word a) { return _mm512_maskz_srli_epi64(0xff, a, 32); }
static inline Word low_half(Word a) { return _mm512_maskz_slli_epi64(0xff, a, 32); }
static inline Word all(long long x) { return _mm512_set1_epi64(x); }
#elif defined(__AVX2__)
using Word = __m256i;
static inline Word product(Word a, Word b) { return _mm256_mul_epu32(a, b); }
static inline Word high_half(Word a) { return _mm256_srli_epi64(a, 32); }
static inline Word low_half(Word a) { return _mm256_slli_epi64(a, 32); }
static inline Word all(long long x) { return _mm256_set1_epi64x(x); }
#else
using Word = __m128i;
static inline Word product(Word a, Word b) { return _mm_mul_epu32(a, b); }
static inline Word high_half(Word a) { return _mm_srli_epi64(a, 32); }
static inline Word low_half(Word a) { return _mm_slli_epi64(a, 32); }
static inline Word all(long long x) { return _mm_set1_epi64x(x); }
#endif
constexpr std::size_t kLanes = sizeof(Word) / sizeof(std::uint64_t);
// Whatever stands in the high halves, products do not see.
static inline Word mul_low(Word a, uint b) { return product(a, all(b)); }
static inline Word mul_high(Word a, uint b) { return high_half(product(a, all(b))); }
// Blocks 0, 2, ... and blocks 1, 3, ... side by side.
static inline void store_words(uint* to, Word even, Word odd) {
  *reinterpret_cast<Word*>(to) = (even & all(0xffffffff)) | low_half(odd);
}
static inline Word counting(long long first) {
  alignas(sizeof(Word)) long long lane[kLanes];
  for (std::size_t k = 0; k < kLanes; ++k) lane[k] = first + 2 * static_cast<long long>(k);
  return *reinterpret_cast<const Word*>(lane);
}
#else
using Word = std::uint64_t;
constexpr std::size_t kLanes = 1;
static inline Word all(std::uint64_t x) { return x; }
static inline Word mul_low(Word a, uint b) { return (a & 0xffffffff) * b; }
static inline Word mul_high(Word a, uint b) { return mul_low(a, b) >> 32; }
static inline void store_words(uint* to, Word even, Word odd) {
  to[0] = static_cast<uint>(even);
  to[1] = static_cast<uint>(odd);
}
static inline Word counting(std::uint64_t first) { return first; }
#endif

#include "lib/draws.glsl"
#include "lib/philox.glsl"

// Blocks at a time: their words stay in the first cache level.
constexpr std::size_t kDrawBlocks = 256;

struct Blocks {
  alignas(64) uint of[4][kDrawBlocks];
};

// The words of these blocks, rounded up to whole vectors; their numbers differ in the low 32 bits only.
static inline void fill_words(const Draw& draw, std::uint32_t stream, std::uint64_t first, std::size_t count,
                              Blocks& words) {
  const auto key0 = static_cast<uint>(draw.seed), key1 = static_cast<uint>(draw.seed >> 32);
  const Word high = all(static_cast<uint>(first >> 32) | draw.purpose << 16 | static_cast<uint>(draw.step >> 32) << 24);
  const Word low = all(static_cast<uint>(draw.step)), own = all(stream);
  for (std::size_t i = 0; i < count; i += 2 * kLanes) {
    const auto at = static_cast<std::uint32_t>(first) + i;
    const Words even = philox(Words{counting(at), high, low, own}, key0, key1);
    const Words odd = philox(Words{counting(at + 1), high, low, own}, key0, key1);
    store_words(words.of[0] + i, even.a, odd.a);
    store_words(words.of[1] + i, even.b, odd.b);
    store_words(words.of[2] + i, even.c, odd.c);
    store_words(words.of[3] + i, even.d, odd.d);
  }
}

// Not inlined: what surrounds these loops would keep gcc from vectorising them.
template <class Real>
GRILLY_NOINLINE static void normal_blocks(const Blocks& words, std::size_t count, Real* to) {
  const uint *const a = words.of[0], *const b = words.of[1], *const c = words.of[2], *const d = words.of[3];
  GRILLY_NO_LOOP_DEPENDENCE
  for (std::size_t i = 0; i < count; ++i) {  // RULE LOOP normal numbers
    const Pair one = normals_of(a[i], b[i]), two = normals_of(c[i], d[i]);
    to[4 * i] = static_cast<Real>(one.a);
    to[4 * i + 1] = static_cast<Real>(one.b);
    to[4 * i + 2] = static_cast<Real>(two.a);
    to[4 * i + 3] = static_cast<Real>(two.b);
  }
}

template <class Real>
GRILLY_NOINLINE static void uniform_blocks(const Blocks& words, std::size_t count, Real* to) {
  const uint *const a = words.of[0], *const b = words.of[1], *const c = words.of[2], *const d = words.of[3];
  GRILLY_NO_LOOP_DEPENDENCE
  for (std::size_t i = 0; i < count; ++i) {  // RULE LOOP uniform numbers
    to[4 * i] = static_cast<Real>(uniform_of(a[i]));
    to[4 * i + 1] = static_cast<Real>(uniform_of(b[i]));
    to[4 * i + 2] = static_cast<Real>(uniform_of(c[i]));
    to[4 * i + 3] = static_cast<Real>(uniform_of(d[i]));
  }
}

// Elements from `element` on, a multiple of 4.
template <class Real, void (*Transform)(const Blocks&, std::size_t, Real*)>
static void draw_elements(const Draw& draw, std::uint32_t stream, std::uint64_t element, std::size_t count, void* to) {
  auto* out = static_cast<Real*>(to);
  Blocks words;
  std::uint64_t block = element / 4;
  while (count > 0) {
    // Never beyond a change of the upper half of the blocks' numbers.
    const std::size_t room = std::min<std::uint64_t>(kDrawBlocks, (std::uint64_t{1} << 32) - (block & 0xffffffff));
    const std::size_t blocks = std::min(room, (count + 3) / 4), whole = std::min(blocks, count / 4);
    fill_words(draw, stream, block, blocks, words);
    Transform(words, whole, out);
    if (whole < blocks) {
      Real last[4 * kDrawBlocks];
      Transform(words, blocks, last);
      std::copy(last + 4 * whole, last + count, out + 4 * whole);
    }
    block += blocks;
    out += 4 * blocks;
    count -= std::min(count, 4 * blocks);
  }
}

}  // namespace GRILLY_ISA
}  // namespace grilly
