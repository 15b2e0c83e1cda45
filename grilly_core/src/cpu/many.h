// Four vectors side by side, for functions whose every operation waits for the one before: a core can only look so
// far ahead for other work, and finds it here in the next instruction. Compilers vectorise a loop of such a function by
// themselves, but write one long chain behind the other (8.9 against 6.7 ns for 16 normal numbers with AVX-512).
#pragma once

#if defined(__GNUC__) && defined(__SSE2__)
#define GRILLY_MANY

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace grilly {
namespace GRILLY_ISA {

#if defined(__AVX512F__)
constexpr std::size_t kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr std::size_t kVectorBytes = 32;
#else
constexpr std::size_t kVectorBytes = 16;
#endif

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
  typedef T in_memory __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
};
template <class T>
using Vector = typename VectorOf<T>::type;

template <class T>
static inline Vector<T> load(const T* from) {
  return *reinterpret_cast<const typename VectorOf<T>::in_memory*>(from);
}
template <class T>
static inline void store(T* to, Vector<T> x) {
  *reinterpret_cast<typename VectorOf<T>::in_memory*>(to) = x;
}

template <class T>
struct Many {
  Vector<T> of[4];

  Many() = default;
  Many(T x) {
    for (auto& v : of) v = x - Vector<T>{};
  }
  Many(Vector<T> a, Vector<T> b, Vector<T> c, Vector<T> d) : of{a, b, c, d} {}
  // Integers keep their bits.
  template <class U>
  explicit Many(const Many<U>& x) {
    for (std::size_t k = 0; k < 4; ++k)
      if constexpr (std::is_same_v<T, float>)
        of[k] = __builtin_convertvector(x.of[k], Vector<T>);
      else
        of[k] = (Vector<T>)x.of[k];
  }

  template <class Function>
  static Many each(const Function& function) {
    Many made;
    for (std::size_t k = 0; k < 4; ++k) made.of[k] = function(k);
    return made;
  }
  friend Many operator+(const Many& a, const Many& b) {
    return each([&](std::size_t k) { return a.of[k] + b.of[k]; });
  }
  friend Many operator-(const Many& a, const Many& b) {
    return each([&](std::size_t k) { return a.of[k] - b.of[k]; });
  }
  friend Many operator*(const Many& a, const Many& b) {
    return each([&](std::size_t k) { return a.of[k] * b.of[k]; });
  }
  friend Many operator&(const Many& a, const Many& b) {
    return each([&](std::size_t k) { return a.of[k] & b.of[k]; });
  }
  friend Many operator^(const Many& a, const Many& b) {
    return each([&](std::size_t k) { return a.of[k] ^ b.of[k]; });
  }
  friend Many operator>>(const Many& a, int bits) {
    return each([&](std::size_t k) { return a.of[k] >> bits; });
  }
  // All bits where it is so.
  friend Many<int> operator==(const Many& a, const Many& b) {
    return Many<int>::each([&](std::size_t k) { return a.of[k] == b.of[k]; });
  }
};

static inline Many<int> floatBitsToInt(const Many<float>& x) {
  return Many<int>::each([&](std::size_t k) { return (Vector<int>)x.of[k]; });
}
static inline Many<float> intBitsToFloat(const Many<int>& x) {
  return Many<float>::each([&](std::size_t k) { return (Vector<float>)x.of[k]; });
}
static inline Many<float> mix(const Many<float>& a, const Many<float>& b, const Many<int>& second) {
  return Many<float>::each([&](std::size_t k) { return second.of[k] ? b.of[k] : a.of[k]; });
}

// Words of 32 bits, each in a lane of 64. product() does not see the upper halves, upper() moves them down, beside()
// takes the lower halves of two vectors by turns. (Masks of all lanes: gcc 12 warns of its own header without them.)
using Lanes = Vector<std::uint64_t>;
#if defined(__AVX512F__)
static inline Lanes product(Lanes a, Lanes b) { return (Lanes)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b); }
// Not by a shift: that runs where most of the products do.
static inline Lanes upper(Lanes a) { return (Lanes)_mm512_maskz_movehdup_ps(0xffff, (__m512)a); }
static inline Lanes beside(Lanes a, Lanes b) { return (Lanes)_mm512_mask_moveldup_ps((__m512)a, 0xaaaa, (__m512)b); }
#define GRILLY_UNPACK(which, a, b) (Vector<float>)_mm512_maskz_unpack##which##_ps(0xffff, (__m512)(a), (__m512)(b))
#define GRILLY_UNPACK2(which, a, b) (Vector<float>)_mm512_maskz_unpack##which##_pd(0xff, (__m512d)(a), (__m512d)(b))
#elif defined(__AVX2__)
static inline Lanes product(Lanes a, Lanes b) { return (Lanes)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
static inline Lanes upper(Lanes a) { return a >> 32; }
static inline Lanes beside(Lanes a, Lanes b) { return (Lanes)_mm256_blend_epi32((__m256i)a, (__m256i)(b << 32), 0xaa); }
#define GRILLY_UNPACK(which, a, b) (Vector<float>)_mm256_unpack##which##_ps((__m256)(a), (__m256)(b))
#define GRILLY_UNPACK2(which, a, b) (Vector<float>)_mm256_unpack##which##_pd((__m256d)(a), (__m256d)(b))
#else
static inline Lanes product(Lanes a, Lanes b) { return (Lanes)_mm_mul_epu32((__m128i)a, (__m128i)b); }
static inline Lanes upper(Lanes a) { return a >> 32; }
static inline Lanes beside(Lanes a, Lanes b) { return (a & 0xffffffff) | b << 32; }
#define GRILLY_UNPACK(which, a, b) (Vector<float>)_mm_unpack##which##_ps((__m128)(a), (__m128)(b))
#define GRILLY_UNPACK2(which, a, b) (Vector<float>)_mm_unpack##which##_pd((__m128d)(a), (__m128d)(b))
#endif

// The first lanes of four vectors, their second lanes, and so on: within 128 bits, which is where this is cheap. What
// was in lane p comes at place fourth_of(p).
constexpr std::size_t kVectorFloats = kVectorBytes / sizeof(float);
static inline void store_fourths(float* to, Vector<float> a, Vector<float> b, Vector<float> c, Vector<float> d) {
  const Vector<float> ab = GRILLY_UNPACK(lo, a, b), cd = GRILLY_UNPACK(lo, c, d);
  const Vector<float> ab2 = GRILLY_UNPACK(hi, a, b), cd2 = GRILLY_UNPACK(hi, c, d);
  store<float>(to, GRILLY_UNPACK2(lo, ab, cd));
  store<float>(to + kVectorFloats, GRILLY_UNPACK2(hi, ab, cd));
  store<float>(to + 2 * kVectorFloats, GRILLY_UNPACK2(lo, ab2, cd2));
  store<float>(to + 3 * kVectorFloats, GRILLY_UNPACK2(hi, ab2, cd2));
}
constexpr std::size_t fourth_of(std::size_t lane) { return kVectorFloats / 4 * (lane % 4) + lane / 4; }
#undef GRILLY_UNPACK
#undef GRILLY_UNPACK2

}  // namespace GRILLY_ISA
}  // namespace grilly
#endif
