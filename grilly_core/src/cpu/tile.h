// The chains that run side by side on one thread, as the loops of an instruction set get them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "grilly/rules.h"
#include "grilly/trajectories.h"

namespace grilly::cpu {

struct Tile {
  const Transitions* transitions;
  const DrawLoops* draw;
  std::size_t dim, rows;
  const void* const* tables;  // in the precision
  const double* constants;
  std::size_t first, chains;  // which of the run's: at most as many as lie side by side
};

// Advances a tile from its first transition to its last.
using RunTile = void (*)(const Tile& tile);

// Of one potential.
struct TrajectoryLoops {
  std::array<RunTile, 2> hmc, nuts;  // by Precision
  const DrawLoops* draw;
  std::size_t chains;  // that lie side by side
};

}  // namespace grilly::cpu
