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

#define POTENTIAL
#define TRAJECTORY
#define TABLE(name, size)
#define DIMENSIONS(dim)
#define CONSTANT(name)
#define NAMED(name, value) constexpr std::uint32_t name = value;
