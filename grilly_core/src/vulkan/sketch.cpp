// Sketches on Vulkan: the elements of each bucket are listed once, and an invocation goes through the list of its own.

#include <algorithm>
#include <bit>
#include <cstring>

#include "vulkan.h"

namespace grilly::vulkan {
namespace {

// An entry of a bucket: chunk, element of the chunk, and whether it is subtracted (sketch.comp.in).
constexpr unsigned kChunkBits = 12;
// Of each bucket, in one dispatch.
constexpr std::uint32_t kEntries = 32'768;
static_assert(kSumChunk == 1u << kChunkBits && kMaxSketched == std::uint64_t{1} << 31);

std::uint64_t chunks_of(std::uint64_t elements) { return (elements + kSumChunk - 1) / kSumChunk; }

}  // namespace

VulkanSketch::VulkanSketch(VulkanDevice& device, SketchLayout layout_) : Sketch(std::move(layout_)), device_(device) {
  for (const SketchLayout::Tensor& tensor : layout.tensors) chunks_ += chunks_of(tensor.elements());

  // Sorted by bucket; elements of one bucket stay in ascending order.
  std::vector<std::uint32_t> starts(layout.buckets + 1), entries(layout.codes.size());
  for (const std::uint32_t code : layout.codes) ++starts[(code >> 1) + 1];
  for (std::size_t bucket = 0; bucket < layout.buckets; ++bucket) starts[bucket + 1] += starts[bucket];
  for (std::size_t bucket = 0; bucket < layout.buckets; ++bucket)
    longest_ = std::max(longest_, starts[bucket + 1] - starts[bucket]);
  std::vector<std::uint32_t> next(starts.begin(), starts.end() - 1);
  const std::uint32_t* code = layout.codes.data();
  std::uint32_t first = 0;  // chunk
  for (const SketchLayout::Tensor& tensor : layout.tensors) {
    for (std::uint64_t i = 0; i < tensor.elements(); ++i, ++code)
      entries[next[*code >> 1]++] = (first << (kChunkBits + 1)) + (static_cast<std::uint32_t>(i) << 1 | (*code & 1));
    first += static_cast<std::uint32_t>(chunks_of(tensor.elements()));
  }

  block_bits_ = static_cast<std::uint32_t>(
      std::bit_width(std::min<VkDeviceSize>(device_.max_allocation, VkDeviceSize{1} << 32) / sizeof entries[0]) - 1);
  std::vector<Transfer> up;
  const auto bring = [&](std::span<std::uint32_t> words) {
    const VkDeviceSize bytes = words.size_bytes();
    OwnedBuffer buffer(device_, device_.info.shares_memory ? Use::shared : Use::device,
                       std::max<VkDeviceSize>(bytes, sizeof words[0]));
    if (buffer->mapped)
      std::memcpy(buffer->mapped, words.data(), bytes);
    else if (bytes > 0)
      up.push_back({buffer->handle, 0, reinterpret_cast<char*>(words.data()), bytes});
    return buffer;
  };
  starts_ = bring(starts);
  const std::size_t block = std::size_t{1} << block_bits_;
  for (std::size_t at = 0; at < entries.size(); at += block)
    blocks_.push_back(bring(std::span(entries).subspan(at, std::min(block, entries.size() - at))));
  block_table_ = OwnedBuffer(device_, Use::upload, std::max<std::size_t>(blocks_.size(), 1) * sizeof(VkDeviceAddress));
  for (std::size_t k = 0; k < blocks_.size(); ++k)
    std::memcpy(block_table_->mapped + k * sizeof(VkDeviceAddress), &blocks_[k]->address, sizeof(VkDeviceAddress));
  places_ =
      OwnedBuffer(device_, Use::upload, std::max<std::size_t>(layout.rows() * chunks_, 1) * sizeof(VkDeviceAddress));
  totals_ = OwnedBuffer(device_, Use::readback, layout.rows() * layout.buckets * size_of(device_.control_precision()));
  const std::lock_guard lock(device_.mutex);
  if (!up.empty()) device_.queue.execute(up, {}, {});
}

// Where the chunks of all tensors are now: nowhere, if they took no part.
void VulkanSketch::write_places() {
  auto* place = reinterpret_cast<VkDeviceAddress*>(places_->mapped);
  for (std::size_t chain = 0; chain < layout.chains; ++chain)
    for (std::size_t field = 0; field < layout.fields; ++field)
      for (const SketchLayout::Tensor& tensor : layout.tensors) {
        const std::size_t segment = tensor.segment + chain;
        const std::uint64_t chunks = chunks_of(tensor.elements());
        if (tensor.plan->segments[segment].measured)
          static_cast<const VulkanPlan*>(tensor.plan)->chunk_addresses(tensor.fields[field], segment, place);
        else
          std::fill_n(place, chunks, VkDeviceAddress{0});
        if (tensor.plan->precision == Precision::f64)
          for (std::uint64_t k = 0; k < chunks; ++k) place[k] |= place[k] != 0;
        place += chunks;
      }
}

void VulkanSketch::read(double* to) {
  device_.require_usable();
  const std::lock_guard lock(device_.mutex);
  write_places();
  const auto groups = static_cast<std::uint32_t>((layout.buckets + kLocalSize - 1) / kLocalSize);
  const auto count = static_cast<std::uint32_t>(layout.rows() * groups);
  struct {
    VkDeviceAddress starts, blocks, places, totals;
    std::uint32_t chunks, buckets, groups_of_row, count, block_bits, from;
  } push{starts_->address,
         block_table_->address,
         places_->address,
         totals_->address,
         static_cast<std::uint32_t>(chunks_),
         static_cast<std::uint32_t>(layout.buckets),
         groups,
         count,
         block_bits_,
         0};
  const Precision precision = device_.control_precision();
  Dispatch dispatch{device_.pipeline({&sketch_shader(), precision}), count, sizeof push};
  std::vector<Stage> stages;
  do {
    std::memcpy(dispatch.push.data(), &push, sizeof push);
    stages.push_back({dispatch});
    push.from += kEntries;
  } while (push.from < longest_);
  device_.queue.execute({}, stages, {});
  for (std::size_t k = 0; k < layout.rows() * layout.buckets; ++k)
    to[k] = precision == Precision::f64 ? reinterpret_cast<const double*>(totals_->mapped)[k]
                                        : static_cast<double>(reinterpret_cast<const float*>(totals_->mapped)[k]);
}

}  // namespace grilly::vulkan
