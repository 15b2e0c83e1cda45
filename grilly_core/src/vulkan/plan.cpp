// A plan on Vulkan: its state stays on the device; parameters and inputs are used where they lie when they lie in
// mapped memory, and are copied otherwise.
//
// A NumPy array cannot be watched, so the caller's array stays the truth: before a run it is compared with what was
// last brought back, and goes up again where it differs.

#include "vulkan.h"

#include <algorithm>
#include <cstring>

namespace grilly::vulkan {
namespace {

// The shader's pack of elements.
constexpr std::uint64_t kPackBytes = 32;

}  // namespace

void convert(std::span<const double> from, Precision precision, void* to) {
  if (precision == Precision::f64)
    std::copy(from.begin(), from.end(), static_cast<double*>(to));
  else
    std::transform(from.begin(), from.end(), static_cast<float*>(to), [](double x) { return static_cast<float>(x); });
}

VulkanPlan::VulkanPlan(VulkanDevice& device, const Rule& rule_, Precision precision_, std::vector<Segment> segments_)
    : Plan(rule_, precision_, std::move(segments_)),
      device_(device),
      size_(size_of(precision)),
      resident_(device.info.shares_memory ? Use::shared : Use::device),
      state_(rule.state.size() - 1 + kExtras + rule.parts.size()),
      in_place_(segments.size()),
      last_seen_(segments.size()),
      inputs_(rule.inputs.size()),
      input_at_(segments.size() * rule.inputs.size()) {
  lay_out();
  for (std::size_t field = 1; field < rule.state.size(); ++field) make_field(field);
  if (rule.updates) device_.pipeline(pass(rule.update));  // what cannot be compiled is refused here
  bool copies = false;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    in_place_[i] = device_.addresses.find(segments[i].parameter, segments[i].elements * size_).value_or(0);
    copies |= in_place_[i] == 0 && segments[i].elements > 0;
  }
  if (copies) parameters_ = make_arena(resident_);

  table_ = OwnedBuffer(device_, Use::upload, std::max<std::size_t>(pieces_.size(), 1) * entry_bytes());
  chunks_ = chunk_table(kLocalSize * device_.packs * (kPackBytes / size_), chunk_count_);
  if (!rule.sums.empty()) {
    sum_chunks_ = chunk_table(kSumChunk, sum_chunk_count_);
    const std::size_t numbers = std::max<std::size_t>(sum_chunk_count_, 1) * rule.sums.size();
    // Where nothing is decided on the device, the host adds up.
    partial_ = OwnedBuffer(device_, rule.decides ? Use::device : Use::readback, numbers * size_);
  }

  std::vector<Transfer> up;
  bring_parameters(up, true);
  const std::lock_guard lock(device_.mutex);
  if (up.empty()) return;
  device_.queue.execute(up, {}, {});
  for (const Piece& piece : pieces_)
    if (!in_place_[piece.segment]) remember(piece);
}

// Pairs of a piece and the number of a chunk in it, for one pass.
OwnedBuffer VulkanPlan::chunk_table(std::uint64_t chunk, std::uint32_t& count) const {
  std::vector<std::uint32_t> chunks;
  for (std::size_t k = 0; k < pieces_.size(); ++k)
    for (std::uint64_t at = 0; at * chunk < pieces_[k].elements; ++at) {
      chunks.push_back(static_cast<std::uint32_t>(k));
      chunks.push_back(static_cast<std::uint32_t>(at));
    }
  count = static_cast<std::uint32_t>(chunks.size() / 2);
  const std::size_t bytes = chunks.size() * sizeof chunks[0];
  OwnedBuffer table(device_, Use::upload, std::max<std::size_t>(bytes, sizeof chunks[0]));
  if (bytes > 0) std::memcpy(table->mapped, chunks.data(), bytes);
  return table;
}

// A stream of the plan's own, zero at first.
void VulkanPlan::make_field(std::size_t field) {
  Arena arena = make_arena(resident_);
  std::vector<char> zeros;
  for (const OwnedBuffer& block : arena) {
    if (block->mapped) {
      std::memset(block->mapped, 0, block->size);
      continue;
    }
    zeros.resize(std::max<std::size_t>(zeros.size(), block->size));
    const std::lock_guard lock(device_.mutex);
    device_.queue.execute({{block->handle, 0, zeros.data(), block->size}}, {}, {});
  }
  state_[field - 1] = std::move(arena);
}

// Only once host and device do agree: what is remembered too early is never sent again.
void VulkanPlan::remember(const Piece& piece) {
  const char* host = static_cast<const char*>(segments[piece.segment].parameter);
  std::memcpy(last_seen_[piece.segment].data() + piece.offset * size_, host + piece.offset * size_,
              piece.elements * size_);
}

// Streams are cut into allocations: at segments where that is possible, inside a segment where it must be.
void VulkanPlan::lay_out() {
  // A chunk that is added up lies in one piece.
  const std::uint64_t unit = rule.sums.empty() ? kSegmentAlignment : kSumChunk;
  const std::uint64_t limit = device_.max_allocation / size_ / unit * unit;
  if (limit == 0)
    throw OutOfDeviceMemory(device_.info.name + ": allocations are limited to " +
                            std::to_string(device_.max_allocation) + " bytes");
  for (std::size_t i = 0; i < segments.size(); ++i) {
    for (std::uint64_t done = 0; done < segments[i].elements;) {
      const std::uint64_t left = segments[i].elements - done;
      const std::uint64_t room = block_elements_.empty() ? 0 : limit - block_elements_.back();
      const std::uint64_t take = left <= room ? left : left <= limit ? 0 : room / unit * unit;
      if (take == 0) {
        block_elements_.push_back(0);
        continue;
      }
      std::uint64_t& used = block_elements_.back();
      pieces_.push_back({i, done, take, block_elements_.size() - 1, used});
      used += padded(take);
      done += take;
    }
  }
}

VulkanPlan::Arena VulkanPlan::make_arena(Use use) const {
  Arena arena;
  for (const std::uint64_t elements : block_elements_) arena.emplace_back(device_, use, elements * size_);
  return arena;
}

Transfer VulkanPlan::transfer(const Arena& arena, const Piece& piece, void* segment_start) const {
  return {arena[piece.block]->handle, piece.at * size_, static_cast<char*>(segment_start) + piece.offset * size_,
          piece.elements * size_};
}

void VulkanPlan::bring_parameters(std::vector<Transfer>& up, bool all) {
  for (const Piece& piece : pieces_) {
    const Segment& segment = segments[piece.segment];
    if (in_place_[piece.segment] || !(segment.active || all)) continue;
    const Transfer move = transfer(parameters_, piece, segment.parameter);
    if (char* mapped = parameters_[piece.block]->mapped) {
      if (!all && std::memcmp(mapped + move.offset, move.host, move.size) == 0) continue;
      std::memcpy(mapped + move.offset, move.host, move.size);
      device_.counters.bytes_up += move.size;
    } else {
      std::vector<char>& seen = last_seen_[piece.segment];
      if (seen.empty()) seen.resize(segment.elements * size_);
      if (all || std::memcmp(seen.data() + piece.offset * size_, move.host, move.size) != 0) up.push_back(move);
    }
  }
}

void VulkanPlan::bring_inputs(std::vector<Transfer>& up) {
  const std::size_t count = rule.inputs.size();
  for (std::size_t i = 0; i < segments.size(); ++i)
    for (std::size_t input = 0; input < count - draws && segments[i].active; ++input) {
      const std::size_t at = i * count + input;
      input_at_[at] = device_.addresses.find(inputs[at], segments[i].elements * size_).value_or(0);
      if (!input_at_[at] && segments[i].elements > 0 && inputs_[input].empty()) inputs_[input] = make_arena(resident_);
    }
  for (const Piece& piece : pieces_)
    for (std::size_t input = 0; input < count - draws && segments[piece.segment].active; ++input) {
      const std::size_t at = piece.segment * count + input;
      if (input_at_[at]) continue;
      // The copy up only reads its host side; Transfer serves both directions.
      const Transfer move = transfer(inputs_[input], piece, const_cast<void*>(inputs[at]));
      if (char* mapped = inputs_[input][piece.block]->mapped) {
        std::memcpy(mapped + move.offset, move.host, move.size);
        device_.counters.bytes_up += move.size;
      } else {
        up.push_back(move);
      }
    }
}

void VulkanPlan::write_tables() {
  const std::size_t count = rule.inputs.size();
  const auto own = [&](const Piece& piece, std::size_t field) {
    if (field == kMissing || state_[field - 1].empty()) return VkDeviceAddress{0};
    return state_[field - 1][piece.block]->address + piece.at * size_;
  };
  auto* word = reinterpret_cast<std::uint64_t*>(table_->mapped);
  for (const Piece& piece : pieces_) {
    const Segment& segment = segments[piece.segment];
    const std::uint64_t in_segment = piece.offset * size_, in_block = piece.at * size_;
    *word++ = segment.active ? piece.elements : 0;
    *word++ = segment.element + piece.offset;
    *word++ = segment.row | std::uint64_t{segment.stream} << 32;
    *word++ =
        in_place_[piece.segment] ? in_place_[piece.segment] + in_segment : parameters_[piece.block]->address + in_block;
    for (std::size_t k = 1; k < rule.fields.size(); ++k) *word++ = own(piece, rule.fields[k]);
    for (std::size_t input = 0; input < count; ++input) {
      const VkDeviceAddress at = input_at_[piece.segment * count + input];
      const bool given = segment.active && input < count - draws;
      *word++ = !given ? 0 : at ? at + in_segment : inputs_[input][piece.block]->address + in_block;
    }
    for (std::size_t extra = 0; extra < kExtras; ++extra) *word++ = own(piece, rule.state.size() + extra);
    for (std::size_t part = 0; part < rule.parts.size(); ++part) *word++ = own(piece, field_of_part(part));
  }
  write_rows(rows_, precision);
  if (rule.decides) write_rows(wide_rows_, device_.control_precision());
}

void VulkanPlan::write_rows(OwnedBuffer& buffer, Precision as) {
  const std::size_t bytes = rows.size() * size_of(as);
  if (!buffer || buffer->size < bytes) {
    buffer = OwnedBuffer();
    buffer = OwnedBuffer(device_, Use::upload, bytes * 2);
  }
  convert(rows, as, buffer->mapped);
}

void VulkanPlan::prepare(std::vector<Transfer>& up) {
  bring_inputs(up);
  bring_parameters(up, false);
  write_tables();
}

Pass VulkanPlan::pass(const SpirvPair& shader) const {
  Pass made{&shader, precision, mixed(), anchored(), traced(), draws, parted()};
  made.choice = rule.choice;
  for (std::size_t k = 0; k < rule.fields.size(); ++k)
    if (rule.fields[k] == kMissing) made.missing |= 1u << k;
  return made;
}

// The push constants of common.comp.in.
Dispatch VulkanPlan::dispatch(const SpirvPair& shader, const OwnedBuffer& chunks, std::uint32_t count) const {
  Dispatch made{device_.pipeline(pass(shader)), count};
  char* at = made.push.data();
  const auto put = [&](auto value) {
    std::memcpy(at, &value, sizeof value);
    at += sizeof value;
  };
  for (const VkDeviceAddress address :
       {table_->address, chunks->address, rows_->address, partial_ ? partial_->address : VkDeviceAddress{0}})
    put(address);
  put(count);
  put(entry_bytes());
  put(draw.seed);
  put(draw.step);
  put(draw.purpose);
  put(std::uint32_t{0});
  const double numbers[] = {mix.limit, mix.scale, strength};
  convert(numbers, precision, at);
  made.push_bytes = static_cast<std::uint32_t>(at - made.push.data() + std::size(numbers) * size_);
  return made;
}

Dispatch VulkanPlan::first_pass() const { return dispatch(rule.first_pass, sum_chunks_, sum_chunk_count_); }

Dispatch VulkanPlan::update() const { return dispatch(rule.update, chunks_, chunk_count_); }

void VulkanPlan::chunk_addresses(std::size_t field, std::size_t segment, VkDeviceAddress* to) const {
  auto piece = std::lower_bound(pieces_.begin(), pieces_.end(), segment,
                                [](const Piece& p, std::size_t index) { return p.segment < index; });
  for (; piece != pieces_.end() && piece->segment == segment; ++piece)
    for (std::uint64_t at = 0; at < piece->elements; at += kSumChunk)
      *to++ = state_[field - 1][piece->block]->address + (piece->at + at) * size_;
}

void VulkanPlan::add_up(Totals& totals) const {
  std::vector<double> partial(sum_chunk_count_ * rule.sums.size());
  for (std::size_t k = 0; k < partial.size(); ++k)
    partial[k] = precision == Precision::f64 ? reinterpret_cast<const double*>(partial_->mapped)[k]
                                             : static_cast<double>(reinterpret_cast<const float*>(partial_->mapped)[k]);
  totals.add(*this, partial);
}

VulkanPlan::Part VulkanPlan::part() const {
  return {.sums = partial_->address,
          .wide_rows = wide_rows_ ? wide_rows_->address : 0,
          .rows = rows_->address,
          .chunks = sum_chunk_count_,
          .row_count = rule.decides ? static_cast<std::uint32_t>(rows.size() / rule.scalars.size()) : 0,
          .is_double = precision == Precision::f64,
          .unused = 0};
}

void VulkanPlan::collect(std::vector<Transfer>& down) {
  for (const Piece& piece : pieces_)
    if (segments[piece.segment].active && !in_place_[piece.segment] && !parameters_[piece.block]->mapped)
      down.push_back(transfer(parameters_, piece, segments[piece.segment].parameter));
}

void VulkanPlan::finish() {
  for (const Piece& piece : pieces_) {
    const Segment& segment = segments[piece.segment];
    if (!segment.active || in_place_[piece.segment]) continue;
    const Transfer move = transfer(parameters_, piece, segment.parameter);
    if (const char* mapped = parameters_[piece.block]->mapped) {
      std::memcpy(move.host, mapped + move.offset, move.size);
      device_.counters.bytes_down += move.size;
    } else {
      remember(piece);
    }
  }
}

void VulkanPlan::move_state(std::size_t field, std::size_t segment, void* host, bool up) {
  device_.require_usable();
  const std::lock_guard lock(device_.mutex);
  std::vector<Transfer> moves;
  const Arena& arena = state_[field - 1];
  for (const Piece& piece : pieces_) {
    if (piece.segment != segment) continue;
    const Transfer move = transfer(arena, piece, host);
    if (char* mapped = arena[piece.block]->mapped)
      up ? std::memcpy(mapped + move.offset, move.host, move.size)
         : std::memcpy(move.host, mapped + move.offset, move.size);
    else
      moves.push_back(move);
  }
  if (moves.empty()) return;
  up ? device_.queue.execute(moves, {}, {}) : device_.queue.execute({}, {}, moves);
}

void VulkanPlan::read_state(std::size_t field, std::size_t segment, void* to) { move_state(field, segment, to, false); }

void VulkanPlan::write_state(std::size_t field, std::size_t segment, const void* from) {
  move_state(field, segment, const_cast<void*>(from), true);
}

}  // namespace grilly::vulkan
