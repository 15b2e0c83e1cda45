// One number of each of the chains that run side by side: what `float` stands for in potentials and trajectories.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "glsl.h"
#include "many.h"

namespace grilly {
namespace GRILLY_ISA {

#if defined(GRILLY_MANY)

// As many chains whatever the instruction set and the precision.
constexpr std::size_t kChains = 16;

template <class T>
using Bits = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;

template <class T>
struct Chosen;

template <class T>
struct Row {
  static constexpr std::size_t kVectors = kChains * sizeof(T) / kVectorBytes;
  static constexpr std::size_t kWidth = kVectorBytes / sizeof(T);
  Vector<T> of[kVectors];

  Row() = default;
  template <class Number>
  requires std::is_arithmetic_v<Number> Row(Number x) {
    for (auto& v : of) v = static_cast<T>(x) - Vector<T>{};
  }
  template <class Function>
  static Row each(const Function& function) {
    Row made;
    for (std::size_t k = 0; k < kVectors; ++k) made.of[k] = function(k);
    return made;
  }
  static Row from(const T* at) {
    return each([&](std::size_t k) { return load<T>(at + k * kWidth); });
  }
  void to(T* at) const {
    for (std::size_t k = 0; k < kVectors; ++k) store<T>(at + k * kWidth, of[k]);
  }

  friend Row operator+(const Row& a, const Row& b) {
    return each([&](std::size_t k) { return a.of[k] + b.of[k]; });
  }
  friend Row operator-(const Row& a, const Row& b) {
    return each([&](std::size_t k) { return a.of[k] - b.of[k]; });
  }
  friend Row operator*(const Row& a, const Row& b) {
    return each([&](std::size_t k) { return a.of[k] * b.of[k]; });
  }
  friend Row operator/(const Row& a, const Row& b) {
    return each([&](std::size_t k) { return a.of[k] / b.of[k]; });
  }
  friend Row operator-(const Row& a) {
    return each([&](std::size_t k) { return -a.of[k]; });
  }
  friend Chosen<T> operator<(const Row& a, const Row& b) {
    return Chosen<T>::each([&](std::size_t k) { return a.of[k] < b.of[k]; });
  }
  friend Chosen<T> operator>(const Row& a, const Row& b) { return b < a; }
  friend Chosen<T> operator==(const Row& a, const Row& b) {
    return Chosen<T>::each([&](std::size_t k) { return a.of[k] == b.of[k]; });
  }
};

// For which of the chains something is so.
template <class T>
struct Chosen {
  Vector<Bits<T>> of[Row<T>::kVectors];
  template <class Function>
  static Chosen each(const Function& function) {
    Chosen made;
    for (std::size_t k = 0; k < Row<T>::kVectors; ++k) made.of[k] = function(k);
    return made;
  }
  friend Chosen operator&&(const Chosen& a, const Chosen& b) {
    return each([&](std::size_t k) { return a.of[k] & b.of[k]; });
  }
  friend Chosen operator||(const Chosen& a, const Chosen& b) {
    return each([&](std::size_t k) { return a.of[k] | b.of[k]; });
  }
  friend Chosen operator!(const Chosen& a) {
    return each([&](std::size_t k) { return ~a.of[k]; });
  }
};

template <class T>
static inline Row<T> mix(const Row<T>& a, const Row<T>& b, const Chosen<T>& second) {
  return Row<T>::each([&](std::size_t k) { return second.of[k] ? b.of[k] : a.of[k]; });
}

template <class T>
static inline Chosen<T> isnan(const Row<T>& x) {
  return !(x == x);
}

// 2^k for whole k, of a range in which that is a normal number: its exponent's bits.
template <class T>
static inline Row<T> power_of_two(const Row<T>& k) {
  constexpr int kMantissa = sizeof(T) == 4 ? 23 : 52, kBias = sizeof(T) == 4 ? 127 : 1023;
  return Row<T>::each([&](std::size_t i) {
    return (Vector<T>)((__builtin_convertvector(k.of[i], Vector<Bits<T>>) + kBias) << kMantissa);
  });
}

template <class T>
static inline Row<T> sqrt(const Row<T>& x) {
  Row<T> made;
  for (std::size_t k = 0; k < Row<T>::kVectors; ++k)
    for (std::size_t i = 0; i < Row<T>::kWidth; ++i) made.of[k][i] = sqrt(x.of[k][i]);
  return made;
}

#else

constexpr std::size_t kChains = 1;

template <class T>
struct Row {
  T of;
  Row() = default;
  template <class Number>
  requires std::is_arithmetic_v<Number> Row(Number x) : of(static_cast<T>(x)) {}
  static Row from(const T* at) { return *at; }
  void to(T* at) const { *at = of; }
  friend Row operator+(Row a, Row b) { return a.of + b.of; }
  friend Row operator-(Row a, Row b) { return a.of - b.of; }
  friend Row operator*(Row a, Row b) { return a.of * b.of; }
  friend Row operator/(Row a, Row b) { return a.of / b.of; }
  friend Row operator-(Row a) { return -a.of; }
  friend bool operator<(Row a, Row b) { return a.of < b.of; }
  friend bool operator>(Row a, Row b) { return a.of > b.of; }
  friend bool operator==(Row a, Row b) { return a.of == b.of; }
};

template <class T>
using Chosen = bool;

template <class T>
static inline Row<T> mix(Row<T> a, Row<T> b, bool second) {
  return second ? b : a;
}
template <class T>
static inline Row<T> sqrt(Row<T> x) {
  return sqrt(x.of);
}
template <class T>
static inline Row<T> power_of_two(Row<T> k) {
  return power_of_two(k.of);
}
template <class T>
static inline bool isnan(Row<T> x) {
  return isnan(x.of);
}

#endif

template <class T>
static inline T largest(const Row<T>& row) {
  T all[kChains];
  row.to(all);
  T found = all[0];
  for (const T x : all) found = x > found ? x : found;
  return found;
}

}  // namespace GRILLY_ISA
}  // namespace grilly
