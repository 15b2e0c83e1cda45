// Sketches on the processor: elements go to their buckets one after another, a field of a chain on one thread.
#pragma once

#include "grilly/sketch.h"

namespace grilly::cpu {

class CpuSketch final : public Sketch {
 public:
  CpuSketch(Device& device, SketchLayout layout);
  void read(double* to) override;

 private:
  void add_up(std::size_t row, double* sums) const;

  Device& device_;
  const unsigned threads_;
};

}  // namespace grilly::cpu
