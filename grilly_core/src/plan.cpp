#include "grilly/device.h"

#include <algorithm>
#include <bit>

namespace grilly {

Plan::Plan(const Rule& rule_, Precision precision_, std::vector<Segment> segments_)
    : rule(rule_),
      precision(precision_),
      segments(std::move(segments_)),
      inputs(segments.size() * rule.inputs.size()),
      draws(rule.drawn != Drawn::none) {
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

void Plan::add_parts() {
  if (parted_) return;
  for (std::size_t part = 0; part < rule.parts.size(); ++part) make_field(field_of_part(part));
  parted_ = true;
}

Totals::Totals(const Rule& rule, std::span<double> numbers)
    : rule_(rule),
      numbers_(numbers),
      buckets_(rule.decides ? 1 : numbers.size() / rule.sums.size()),
      lanes_(buckets_ * rule.sums.size()),
      chunk_of_(buckets_) {}

// Lanes that no chunk has come to hold 0, and are left out: many small chains have one chunk each.
void Totals::widen(std::uint64_t chunks) {
  const std::size_t width = std::bit_ceil(std::min<std::uint64_t>(chunks, kSumLanes));
  if (width <= width_) return;
  std::vector<double> lanes(buckets_ * rule_.sums.size() * width);
  for (std::size_t k = 0; k < lanes_.size(); ++k) lanes[k / width_ * width + k % width_] = lanes_[k];
  lanes_ = std::move(lanes);
  width_ = width;
}

void Totals::add(const Plan& plan, std::span<const double> partial) {
  const std::size_t sums = rule_.sums.size();
  const double* chunk = partial.data();
  // A plan begins with the first lane again, so that its sums do not depend on the plans before it.
  const auto bucket_of = [&](const Segment& segment) { return rule_.decides ? 0 : segment.bucket; };
  std::fill(chunk_of_.begin(), chunk_of_.end(), 0);
  for (const Segment& segment : plan.segments)
    chunk_of_[bucket_of(segment)] += (segment.elements + kSumChunk - 1) / kSumChunk;
  widen(*std::max_element(chunk_of_.begin(), chunk_of_.end()));
  std::fill(chunk_of_.begin(), chunk_of_.end(), 0);
  for (const Segment& segment : plan.segments) {
    const std::size_t bucket = bucket_of(segment);
    for (std::uint64_t at = 0; at < segment.elements; at += kSumChunk, chunk += sums) {
      const std::size_t lane = chunk_of_[bucket]++ % kSumLanes;
      for (std::size_t s = 0; s < sums; ++s) lanes_[(bucket * sums + s) * width_ + lane] += chunk[s];
    }
  }
}

void Totals::finish() {
  const std::size_t sums = rule_.sums.size();
  for (std::size_t k = 0; k < buckets_ * sums; ++k) {
    double* const lane = lanes_.data() + k * width_;
    for (std::size_t width = width_ / 2; width > 0; width /= 2)
      for (std::size_t j = 0; j < width; ++j) lane[j] += lane[j + width];
    numbers_[rule_.decides ? rule_.sum_at[k] : k] = lane[0];
  }
}

}  // namespace grilly
