#include "grilly/device.h"

namespace grilly {

Plan::Plan(const Rule& rule_, Precision precision_, std::vector<Segment> segments_)
    : rule(rule_), precision(precision_), segments(std::move(segments_)), inputs(segments.size() * rule.inputs.size()) {
  std::uint64_t first = 0;
  for (Segment& segment : segments) {
    segment.first = first;
    first += padded(segment.elements);
  }
}

std::uint64_t Plan::span() const {
  if (segments.empty()) return 0;
  return segments.back().first + padded(segments.back().elements);
}

std::uint64_t Plan::active_elements() const {
  std::uint64_t sum = 0;
  for (const Segment& segment : segments) sum += segment.active ? segment.elements : 0;
  return sum;
}

void Plan::add(Extra extra) {
  bool& has = has_[static_cast<std::size_t>(extra)];
  if (!has) make_field(field_of(extra));
  has = true;
}

void Plan::add_anchor() {
  add(Extra::anchor);
  add(Extra::weight);
}

void Plan::add_trace() { add(Extra::trace); }

}  // namespace grilly
