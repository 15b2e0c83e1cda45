// Random numbers of chains that lie side by side, each from its own stream: what draw_elements() would give it. A lane
// is a chain, so that few numbers for many chains cost no more than many for one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "draws.h"
#include "row.h"

namespace grilly {
namespace GRILLY_ISA {

struct ChainKeys {
  std::uint64_t seed;
  std::uint32_t purpose;
  alignas(64) std::uint32_t stream[kChains], low[kChains], high[kChains];  // low and high: of the step
};

#if defined(GRILLY_MANY)

static inline Word word_of(const std::uint32_t* chains) {
  const auto both = (Lanes)load<uint>(chains);
  return {both, upper(both)};
}

// Of the block of four elements with this number, for the chains from `first` on that fill a vector.
static inline Words block_of(const ChainKeys& keys, std::size_t first, std::uint32_t block) {
  const auto key0 = static_cast<uint>(keys.seed), key1 = static_cast<uint>(keys.seed >> 32);
  const Word high = word_of(keys.high + first) ^ (keys.purpose << 16);
  return philox(Words{all(block), high, word_of(keys.low + first), word_of(keys.stream + first)}, key0, key1);
}
static inline Vector<uint> word(Word made) { return (Vector<uint>)beside(made.even, made.odd); }

template <class Real>
static inline void store_as(Real* to, Vector<float> x) {
  if constexpr (sizeof(Real) == sizeof(float)) {
    store<float>(to, x);
  } else {
    float some[kVectorFloats];
    store<float>(some, x);
    for (std::size_t k = 0; k < kVectorFloats; ++k) to[k] = some[k];
  }
}

// Elements 0 to `count` of each chain: to[element][kChains].
template <class Real>
static void normal_rows(const ChainKeys& keys, std::size_t count, Real* to) {
  for (std::size_t first = 0; first < kChains; first += kVectorFloats)
    for (std::size_t element = 0; element < count; element += 8) {
      const auto block = static_cast<std::uint32_t>(element / 4);
      const Words one = block_of(keys, first, block), two = block_of(keys, first, block + 1);
      const Many<uint> u(word(one.a), word(one.c), word(two.a), word(two.c));
      const Many<uint> v(word(one.b), word(one.d), word(two.b), word(two.d));
      const many::Pair z = many::normals_of(u, v);
      for (std::size_t k = 0; k < 8 && element + k < count; ++k)
        store_as(to + (element + k) * kChains + first, k % 2 ? z.b.of[k / 2] : z.a.of[k / 2]);
    }
}

// One element of each chain.
template <class Real>
static void uniform_row(const ChainKeys& keys, std::uint32_t element, Real* to) {
  for (std::size_t first = 0; first < kChains; first += kVectorFloats) {
    const Words made = block_of(keys, first, element / 4);
    const Word which = element % 4 == 0 ? made.a : element % 4 == 1 ? made.b : element % 4 == 2 ? made.c : made.d;
    store_as(to + first, many::uniform_of(Many<uint>(word(which), word(which), word(which), word(which))).of[0]);
  }
}

#else

static inline Words block_of(const ChainKeys& keys, std::uint32_t block) {
  const Word high = all(keys.high[0] | keys.purpose << 16);
  return philox(Words{all(block), high, all(keys.low[0]), all(keys.stream[0])}, static_cast<uint>(keys.seed),
                static_cast<uint>(keys.seed >> 32));
}

template <class Real>
static void normal_rows(const ChainKeys& keys, std::size_t count, Real* to) {
  for (std::size_t element = 0; element < count; element += 4) {
    const Words made = block_of(keys, static_cast<std::uint32_t>(element / 4));
    const Pair one = normals_of(static_cast<uint>(made.a), static_cast<uint>(made.b));
    const Pair two = normals_of(static_cast<uint>(made.c), static_cast<uint>(made.d));
    const float all_four[] = {one.a, one.b, two.a, two.b};
    for (std::size_t k = 0; k < 4 && element + k < count; ++k) to[element + k] = all_four[k];
  }
}

template <class Real>
static void uniform_row(const ChainKeys& keys, std::uint32_t element, Real* to) {
  const Words made = block_of(keys, element / 4);
  const Word which = element % 4 == 0 ? made.a : element % 4 == 1 ? made.b : element % 4 == 2 ? made.c : made.d;
  to[0] = uniform_of(static_cast<uint>(which));
}

#endif

}  // namespace GRILLY_ISA
}  // namespace grilly
