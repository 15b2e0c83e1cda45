// Count sketches of what plans hold: each bucket is the sum of the elements that fall into it, each with its sign.
#pragma once

#include <cstdint>
#include <vector>

#include "grilly/device.h"

namespace grilly {

// Elements of a chain that an entry of a bucket can point to, each tensor's rounded up to whole chunks.
constexpr std::uint64_t kMaxSketched = std::uint64_t{1} << 31;

struct SketchLayout {
  struct Tensor {
    Plan* plan;
    std::size_t segment;              // that of the first chain; the others' follow
    std::vector<std::size_t> fields;  // of the plan's own, as Plan::read_state() counts
    std::uint64_t elements() const { return plan->segments[segment].elements; }
  };
  std::vector<Tensor> tensors;       // one after another
  std::vector<std::uint32_t> codes;  // by element of all of them: twice its bucket, and 1 more where its sign is minus
  std::size_t chains, fields, buckets;

  std::size_t rows() const { return chains * fields; }
};

class Sketch {
 public:
  explicit Sketch(SketchLayout layout_) : layout(std::move(layout_)) {}
  virtual ~Sketch() = default;
  Sketch(const Sketch&) = delete;
  Sketch& operator=(const Sketch&) = delete;

  // Adds up, in ascending order of the elements, what took part in the last run if that was one with sums. In double
  // where the device has it. to: [chain][field][bucket].
  virtual void read(double* to) = 0;

  const SketchLayout layout;
};

}  // namespace grilly
