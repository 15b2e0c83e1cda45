// What the generated trajectories need around them, outside of their namespaces.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "glsl.h"
#include "grilly/rules.h"
#include "row.h"
#include "row_draws.h"
#include "tile.h"

#define MATH static inline
#define POTENTIAL
#define TRAJECTORY
#define TABLE(name, size)
#define DIMENSIONS(dim)
#define CONSTANT(name)
#define NAMED(name, value) constexpr std::uint32_t name = value;
#define GRILLY_DOUBLE (sizeof(Real) == 8)
#define LOWEST_EXP (GRILLY_DOUBLE ? -708 : -87)
#define HIGHEST_EXP (GRILLY_DOUBLE ? 710 : 89)
// 1.5 times the first power of two whose numbers have no fractions.
#define ROUNDER (GRILLY_DOUBLE ? 6755399441055744.0 : 12582912.0)
