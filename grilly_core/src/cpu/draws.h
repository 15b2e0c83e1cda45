// Random numbers for a stretch of elements: the words of some blocks, then the transform of all of them.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "glsl.h"
#include "grilly/rules.h"
#include "many.h"

namespace grilly {
namespace GRILLY_ISA {

using uint = std::uint32_t;

// Blocks at a time: their words stay in the first cache level.
constexpr std::size_t kDrawBlocks = 256;

struct Blocks {
  alignas(64) uint of[4][kDrawBlocks];
};

#if defined(GRILLY_MANY)
// The words of even and of odd lanes, side by side too.
struct Word {
  Lanes even, odd;
};
static inline Lanes lanes(uint x) { return std::uint64_t{x} - Lanes{}; }
static inline Word all(uint x) { return {lanes(x), lanes(x)}; }
static inline Word operator+(Word a, uint b) { return {a.even + lanes(b), a.odd + lanes(b)}; }
static inline Word operator^(Word a, Word b) { return {a.even ^ b.even, a.odd ^ b.odd}; }
static inline Word operator^(Word a, uint b) { return a ^ all(b); }
// Whatever stands in the upper halves, products do not see.
static inline Word mul_low(Word a, uint b) { return {product(a.even, lanes(b)), product(a.odd, lanes(b))}; }
static inline Word mul_high(Word a, uint b) {
  const Word whole = mul_low(a, b);
  return {upper(whole.even), upper(whole.odd)};
}

// Inlined, long as they are: a call would pass all its vectors through memory.
#pragma push_macro("RULE")
#undef RULE
#define RULE [[gnu::always_inline]] static inline
#include "lib/philox.glsl"
namespace many {
#define float Many<float>
#define int Many<int>
#define uint Many<uint>
#include "lib/draws.glsl"
#undef float
#undef int
#undef uint
}  // namespace many
#pragma pop_macro("RULE")

// Vectors of blocks in the order in which store_fourths() takes them.
constexpr std::size_t kBlocksTogether = 2 * kVectorFloats;
static inline Word counting(std::uint32_t first) {
  Word block{};
  for (std::size_t k = 0; k < kVectorFloats / 2; ++k) {
    block.even[k] = first + fourth_of(2 * k);
    block.odd[k] = first + fourth_of(2 * k + 1);
  }
  return block;
}
static inline void store_words(uint* to, Word word) { store(to, (Vector<uint>)beside(word.even, word.odd)); }

static inline Vector<uint> word(const Blocks& words, std::size_t which, std::size_t at) {
  return load(words.of[which] + at);
}
[[maybe_unused]] static void normal_blocks(const Blocks& words, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; i += kBlocksTogether) {
    const std::size_t j = i + kVectorFloats;
    const Many<uint> u(word(words, 0, i), word(words, 2, i), word(words, 0, j), word(words, 2, j));
    const Many<uint> v(word(words, 1, i), word(words, 3, i), word(words, 1, j), word(words, 3, j));
    const many::Pair z = many::normals_of(u, v);
    store_fourths(to + 4 * i, z.a.of[0], z.b.of[0], z.a.of[1], z.b.of[1]);
    store_fourths(to + 4 * j, z.a.of[2], z.b.of[2], z.a.of[3], z.b.of[3]);
  }
}
[[maybe_unused]] static void uniform_blocks(const Blocks& words, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; i += kVectorFloats) {
    const Many<uint> w(word(words, 0, i), word(words, 1, i), word(words, 2, i), word(words, 3, i));
    const Many<float> z = many::uniform_of(w);
    store_fourths(to + 4 * i, z.of[0], z.of[1], z.of[2], z.of[3]);
  }
}
#else
using Word = std::uint64_t;
static inline Word all(uint x) { return x; }
static inline Word mul_low(Word a, uint b) { return (a & 0xffffffff) * b; }
static inline Word mul_high(Word a, uint b) { return mul_low(a, b) >> 32; }

#include "lib/draws.glsl"
#include "lib/philox.glsl"

constexpr std::size_t kVectorFloats = 1, kBlocksTogether = 1;
static inline Word counting(std::uint32_t first) { return first; }
static inline void store_words(uint* to, Word word) { *to = static_cast<uint>(word); }

// Not inlined: what surrounds these loops would keep gcc from vectorising them.
[[maybe_unused]] GRILLY_NOINLINE static void normal_blocks(const Blocks& words, std::size_t count, float* to) {
  const uint *const a = words.of[0], *const b = words.of[1], *const c = words.of[2], *const d = words.of[3];
  GRILLY_NO_LOOP_DEPENDENCE
  for (std::size_t i = 0; i < count; ++i) {  // RULE LOOP normal numbers
    const Pair one = normals_of(a[i], b[i]), two = normals_of(c[i], d[i]);
    to[4 * i] = one.a;
    to[4 * i + 1] = one.b;
    to[4 * i + 2] = two.a;
    to[4 * i + 3] = two.b;
  }
}

[[maybe_unused]] GRILLY_NOINLINE static void uniform_blocks(const Blocks& words, std::size_t count, float* to) {
  const uint *const a = words.of[0], *const b = words.of[1], *const c = words.of[2], *const d = words.of[3];
  GRILLY_NO_LOOP_DEPENDENCE
  for (std::size_t i = 0; i < count; ++i) {  // RULE LOOP uniform numbers
    to[4 * i] = uniform_of(a[i]);
    to[4 * i + 1] = uniform_of(b[i]);
    to[4 * i + 2] = uniform_of(c[i]);
    to[4 * i + 3] = uniform_of(d[i]);
  }
}
#endif

// The words of these blocks, rounded up to whole vectors; their numbers differ in the low 32 bits only.
static void fill_words(const Draw& draw, std::uint32_t stream, std::uint64_t first, std::size_t count, Blocks& words) {
  const auto key0 = static_cast<uint>(draw.seed), key1 = static_cast<uint>(draw.seed >> 32);
  const Word high = all(static_cast<uint>(first >> 32) | draw.purpose << 16 | static_cast<uint>(draw.step >> 32) << 24);
  const Word low = all(static_cast<uint>(draw.step)), own = all(stream);
  Word at = counting(static_cast<uint>(first));
  for (std::size_t i = 0; i < count; i += kVectorFloats, at = at + kVectorFloats) {
    const Words made = philox(Words{at, high, low, own}, key0, key1);
    store_words(words.of[0] + i, made.a);
    store_words(words.of[1] + i, made.b);
    store_words(words.of[2] + i, made.c);
    store_words(words.of[3] + i, made.d);
  }
}

// Elements from `element` on, a multiple of 4.
template <class Real, void (*Transform)(const Blocks&, std::size_t, float*)>
static void draw_elements(const Draw& draw, std::uint32_t stream, std::uint64_t element, std::size_t count, void* to) {
  auto* out = static_cast<Real*>(to);
  Blocks words;
  std::uint64_t block = element / 4;
  while (count > 0) {
    // Never beyond a change of the upper half of the blocks' numbers.
    const std::size_t room = std::min<std::uint64_t>(kDrawBlocks, (std::uint64_t{1} << 32) - (block & 0xffffffff));
    const std::size_t blocks = std::min(room, (count + 3) / 4), elements = std::min(count, 4 * blocks);
    fill_words(draw, stream, block, blocks, words);
    const bool in_place = std::is_same_v<Real, float> && elements % (4 * kBlocksTogether) == 0;
    float some[4 * kDrawBlocks];
    Transform(words, blocks, in_place ? reinterpret_cast<float*>(out) : some);
    if (!in_place)
      for (std::size_t i = 0; i < elements; ++i) out[i] = static_cast<Real>(some[i]);
    block += blocks;
    out += elements;
    count -= elements;
  }
}

}  // namespace GRILLY_ISA
}  // namespace grilly
