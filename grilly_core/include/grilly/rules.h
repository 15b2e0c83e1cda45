// The update rules this build knows: names, fields, SPIR-V and loops, generated from shaders/rules/.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace grilly {

enum class Precision { f32, f64 };
constexpr std::size_t size_of(Precision precision) { return precision == Precision::f32 ? 4 : 8; }

// Streams (state fields, then inputs) that one rule may have; the generator refuses more.
constexpr std::size_t kMaxStreams = 16;

struct Spirv {
  const std::uint32_t* words = nullptr;
  std::size_t count = 0;
};

struct Rule {
  std::string_view name;
  std::vector<std::string_view> state;    // the first is the caller's array, the others belong to the plan
  std::vector<std::string_view> inputs;   // read only
  std::vector<std::string_view> scalars;  // one row of these per segment, computed in double
  std::array<Spirv, 2> spirv;             // by Precision; empty in a build without Vulkan

  std::size_t streams() const { return state.size() + inputs.size(); }
};

// In the order of their names.
const std::vector<Rule>& rules();

// Runs a rule over `count` elements: row holds the scalars, stream one address per state field and input.
using Loop = void (*)(const double* row, void* const* stream, std::size_t count);
using LoopPair = std::array<Loop, 2>;  // by Precision

}  // namespace grilly
