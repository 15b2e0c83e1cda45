// What a rule file needs to be C++: the names of GLSL that it may use, for both precisions.
//
// The rules' namespaces are nested in grilly, so these hide the C library's functions: a function that is missing here
// would otherwise bind silently to its double overload (-Werror=double-promotion catches what is left).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#define RULE static inline
#define SUMS static inline
#define PARTS static inline
#define CONTROL static inline
#define CONTROLLED_BY(name)
#define NORMAL(name)
#define UNIFORM(name)
#define OPTIONAL(name, value)
#define ONE_OF(name, ...)
#define MATH static inline

// What depends on the precision in lib/elementary.glsl. Real is the precision's type where this is used.
#define GRILLY_DOUBLE (sizeof(Real) == 8)
#define LOWEST_EXP (GRILLY_DOUBLE ? -708 : -87)
#define HIGHEST_EXP (GRILLY_DOUBLE ? 710 : 89)
// 1.5 times the first power of two whose numbers have no fractions.
#define ROUNDER (GRILLY_DOUBLE ? 6755399441055744.0 : 12582912.0)

// Elements do not depend on one another: a stream is either a different one or the same memory, element by element.
#if defined(__clang__)
#define GRILLY_NO_LOOP_DEPENDENCE _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define GRILLY_NO_LOOP_DEPENDENCE _Pragma("GCC ivdep")
#else
#define GRILLY_NO_LOOP_DEPENDENCE __pragma(loop(ivdep))
#endif

// A short loop that is unrolled is not vectorised any more.
#if defined(__GNUC__) && !defined(__clang__)
#define GRILLY_NO_UNROLLING _Pragma("GCC unroll 1")
#else
#define GRILLY_NO_UNROLLING
#endif

#if defined(__GNUC__)
#define GRILLY_NOINLINE __attribute__((noinline))
#else
#define GRILLY_NOINLINE __declspec(noinline)
#endif

#if !defined(__GNUC__)
#include <cmath>
#endif

namespace grilly {
namespace GRILLY_ISA {

#if defined(__GNUC__)
static inline float sqrt(float x) { return __builtin_sqrtf(x); }
static inline double sqrt(double x) { return __builtin_sqrt(x); }
static inline double floor(double x) { return __builtin_floor(x); }
#else
static inline float sqrt(float x) { return std::sqrt(x); }
static inline double sqrt(double x) { return std::sqrt(x); }
static inline double floor(double x) { return std::floor(x); }
#endif

static inline int floatBitsToInt(float x) { return std::bit_cast<int>(x); }
static inline float intBitsToFloat(int x) { return std::bit_cast<float>(x); }
static inline float mix(float a, float b, bool second) { return second ? b : a; }
static inline double mix(double a, double b, bool second) { return second ? b : a; }
static inline bool isnan(float x) { return x != x; }
static inline bool isnan(double x) { return x != x; }
// 2^k for whole k, of a range in which that is a normal number. Behind 1.5 * 2^52 a double has its whole part in its
// last bits: not every instruction set has a conversion to 64 bits.
static inline float power_of_two(float k) { return std::bit_cast<float>((static_cast<std::int32_t>(k) + 127) << 23); }
static inline double power_of_two(double k) {
  return std::bit_cast<double>(std::bit_cast<std::uint64_t>(k + (6755399441055744.0 + 1023)) << 52);
}

}  // namespace GRILLY_ISA
}  // namespace grilly
