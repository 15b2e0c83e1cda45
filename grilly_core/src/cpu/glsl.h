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

}  // namespace GRILLY_ISA
}  // namespace grilly
