// The update rules this build knows: names, fields, SPIR-V and loops, generated from shaders/rules/.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace grilly {

enum class Precision { f32, f64 };
constexpr std::size_t size_of(Precision precision) { return precision == Precision::f32 ? 4 : 8; }

// Streams (state fields, inputs, parts) that one rule may have; the generator refuses more.
constexpr std::size_t kMaxStreams = 16;

struct Spirv {
  const std::uint32_t* words = nullptr;
  std::size_t count = 0;
};

// What an input is that the engine makes itself, unless the caller gives it.
enum class Drawn { none, normal, uniform };

using SpirvPair = std::array<Spirv, 2>;  // by Precision; empty in a build without Vulkan

constexpr std::size_t kMissing = ~std::size_t{0};

// A rule with sums has two passes: the first adds up what every element contributes, a decision makes numbers and the
// scalars of the second pass out of that, and the second updates.
struct Rule {
  std::string_view name;
  std::vector<std::string_view> state;    // the first is the caller's array, the others belong to the plan
  std::vector<std::size_t> fields;        // where in `state` each field of the shader is; kMissing: nowhere
  std::vector<std::string_view> inputs;   // read only
  Drawn drawn;                            // what the last input is
  std::vector<std::string_view> scalars;  // one row of these per segment, computed in double
  std::vector<std::string_view> sums;     // none: there is no first pass
  std::vector<std::string_view> parts;    // what the first pass keeps of every element, for a plan that wants it
  std::vector<std::string_view> numbers;  // what the decision takes and gives, in double; the sums are among them
  std::vector<std::size_t> sum_at;        // which number each sum is
  bool updates;                           // false: a rule that only measures
  bool either;                            // the pass with sums is the whole step: a run makes it, or the update
  bool decides;                           // false: the numbers are the sums, and the scalars stay as they are
  std::uint32_t choice;                   // which function the one is that the rule's file leaves open
  SpirvPair update, first_pass, decision;

  // Which passes a run makes that takes these numbers.
  bool sums_in(std::span<const double> numbers_taken) const {
    return !sums.empty() && !(either && numbers_taken.empty());
  }
  bool updates_in(std::span<const double> numbers_taken) const {
    return updates && !(either && !numbers_taken.empty());
  }

  std::size_t streams() const { return state.size() + inputs.size(); }
};

// Elements whose sum is one number of the first pass: a piece of a segment, from a multiple of this on.
constexpr std::size_t kSumChunk = 4'096;
// Numbers of chunks are added up in as many lanes.
constexpr std::size_t kSumLanes = 128;

// In the order of their names.
const std::vector<Rule>& rules();
// By the precision in which it adds up.
const SpirvPair& sketch_shader();

// Runs a rule over `count` elements: row holds the scalars, stream one address per state field and input. far: there is
// so much of them that nothing stays in the caches from one run to the next.
using Loop = void (*)(const double* row, void* const* stream, std::size_t count, bool far);
// What a chunk of at most kSumChunk elements adds to each sum. The streams of its parts come last, null for none.
using SumLoop = void (*)(const double* row, void* const* stream, std::size_t count, double* sums);
using Decide = void (*)(double* numbers);
using MakeRow = void (*)(double* row, const double* numbers);

struct Loops {
  std::array<Loop, 2> update;  // by Precision, as the next
  std::array<SumLoop, 2> sums;
  Decide decide;
  MakeRow make_row;
};

// What random numbers follow from, beside the stream and the element (docs/random.md).
struct Draw {
  std::uint64_t seed = 0, step = 0;
  std::uint32_t purpose = 0;
};
// Numbers for `count` elements from `element` on, a multiple of 4.
using DrawLoop = void (*)(const Draw& draw, std::uint32_t stream, std::uint64_t element, std::size_t count, void* to);

struct DrawLoops {
  std::array<DrawLoop, 2> normal, uniform;  // by Precision
};

// Before and after any rule: shaders/lib/gradient.glsl. mix holds limit, scale and strength.
using MixLoop = void (*)(const double* mix, const void* gradient, const void* parameter, const void* weight,
                         const void* anchor, void* mixed, std::size_t count);
using TraceLoop = void (*)(void* trace, const void* before, const void* after, const void* gradient, std::size_t count);

struct GradientLoops {
  std::array<MixLoop, 2> mix;  // by Precision
  std::array<TraceLoop, 2> trace;
};

}  // namespace grilly
