#include "sketch.h"

#include <algorithm>
#include <bit>

#include "plan.h"
#include "pool.h"

namespace grilly::cpu {
namespace {

// Elements of all fields below which it costs more to wake a second thread.
constexpr std::uint64_t kWakeElements = 100'000;

// The order of elements in memory is that of each bucket's sum; going bucket by bucket would wait for memory.
template <class Real>
void add(const Real* element, const std::uint32_t* code, std::uint64_t count, double* sums) {
  for (std::uint64_t i = 0; i < count; ++i) {
    // The sign is flipped, not multiplied with: a product could be fused with the sum.
    const auto bits = std::bit_cast<std::uint64_t>(static_cast<double>(element[i]));
    sums[code[i] >> 1] += std::bit_cast<double>(bits ^ std::uint64_t{code[i]} << 63);
  }
}

}  // namespace

CpuSketch::CpuSketch(Device& device, SketchLayout layout_)
    : Sketch(std::move(layout_)), device_(device), threads_(cpu_threads()) {}

void CpuSketch::read(double* to) {
  struct Job {
    const CpuSketch& sketch;
    double* to;
  } job{*this, to};
  Pool::of(threads_).run({.work =
                              [](void* context, std::uint64_t row) {
                                const Job& mine = *static_cast<Job*>(context);
                                mine.sketch.add_up(row, mine.to + row * mine.sketch.layout.buckets);
                              },
                          .context = &job,
                          .chunks = layout.rows(),
                          .backwards = false,
                          .worth_waking = layout.codes.size() * layout.rows() >= kWakeElements});
  device_.counters.dispatches.fetch_add(1, std::memory_order_relaxed);
}

void CpuSketch::add_up(std::size_t row, double* sums) const {
  const std::size_t chain = row / layout.fields, field = row % layout.fields;
  std::fill_n(sums, layout.buckets, 0.0);
  const std::uint32_t* code = layout.codes.data();
  for (const SketchLayout::Tensor& tensor : layout.tensors) {
    const std::size_t segment = tensor.segment + chain;
    if (tensor.plan->segments[segment].measured) {
      const void* elements = static_cast<CpuPlan*>(tensor.plan)->state(tensor.fields[field], segment);
      if (tensor.plan->precision == Precision::f64)
        add(static_cast<const double*>(elements), code, tensor.elements(), sums);
      else
        add(static_cast<const float*>(elements), code, tensor.elements(), sums);
    }
    code += tensor.elements();
  }
}

}  // namespace grilly::cpu
