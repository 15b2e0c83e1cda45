// What is submitted: copies through the staging ring, dispatches, and the wait for their end.

#include "vulkan.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace grilly::vulkan {
namespace {

bool injected(const char* where) {
  const char* fail = std::getenv("GRILLY_FAIL");
  return fail && std::strcmp(fail, where) == 0;
}

void barrier(VulkanDevice& device, VkCommandBuffer commands, VkPipelineStageFlags from, VkAccessFlags written,
             VkPipelineStageFlags to, VkAccessFlags read) {
  const VkMemoryBarrier memory{
      .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = written, .dstAccessMask = read};
  device.vk.vkCmdPipelineBarrier(commands, from, to, 0, 1, &memory, 0, nullptr, 0, nullptr);
}

// A part of a transfer, and where it lies in its slot of the ring.
struct Part {
  Transfer transfer;
  VkDeviceSize in_slot;
};
using Batch = std::vector<Part>;

// Cut transfers so that each batch fills one slot at most.
std::vector<Batch> batches(const std::vector<Transfer>& transfers) {
  std::vector<Batch> result;
  VkDeviceSize used = kSlotBytes;
  for (Transfer rest : transfers) {
    while (rest.size > 0) {
      if (used == kSlotBytes) {
        result.emplace_back();
        used = 0;
      }
      Transfer part = rest;
      part.size = std::min(rest.size, kSlotBytes - used);
      result.back().push_back({part, used});
      // Copies start at multiples of 16 in the ring: some devices copy those faster.
      used = std::min<VkDeviceSize>(kSlotBytes, round_up(used + part.size, 16));
      rest.offset += part.size;
      rest.host += part.size;
      rest.size -= part.size;
    }
  }
  return result;
}

void record_copies(VulkanDevice& device, VkCommandBuffer commands, const Buffer& slot, const Batch& batch, bool up) {
  for (std::size_t i = 0; i < batch.size();) {
    std::vector<VkBufferCopy> regions;
    const VkBuffer buffer = batch[i].transfer.buffer;
    for (; i < batch.size() && batch[i].transfer.buffer == buffer; ++i) {
      const auto& [transfer, in_slot] = batch[i];
      regions.push_back(up ? VkBufferCopy{in_slot, transfer.offset, transfer.size}
                           : VkBufferCopy{transfer.offset, in_slot, transfer.size});
    }
    device.vk.vkCmdCopyBuffer(commands, up ? slot.handle : buffer, up ? buffer : slot.handle,
                              static_cast<std::uint32_t>(regions.size()), regions.data());
  }
}

}  // namespace

void Queue::open(VulkanDevice& device, std::uint32_t family, std::uint32_t timestamp_bits) {
  device_ = &device;
  device.vk.vkGetDeviceQueue(device.handle, family, 0, &queue_);
  const VkCommandPoolCreateInfo pool{.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                     .flags = VK_COMMAND_POOL_CREATE_TRANSIENT_BIT,
                                     .queueFamilyIndex = family};
  check(device.vk.vkCreateCommandPool(device.handle, &pool, nullptr, &pool_), "vkCreateCommandPool");
  const VkSemaphoreTypeCreateInfo type{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                       .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
  const VkSemaphoreCreateInfo semaphore{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type};
  check(device.vk.vkCreateSemaphore(device.handle, &semaphore, nullptr, &timeline_), "vkCreateSemaphore");
  if (timestamp_bits > 0) {
    VkPhysicalDeviceProperties properties;
    vkGetPhysicalDeviceProperties(device.physical, &properties);
    ns_per_tick_ = static_cast<double>(properties.limits.timestampPeriod);
    timestamp_mask_ = timestamp_bits >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << timestamp_bits) - 1;
    const VkQueryPoolCreateInfo queries{
        .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO, .queryType = VK_QUERY_TYPE_TIMESTAMP, .queryCount = 2};
    check(device.vk.vkCreateQueryPool(device.handle, &queries, nullptr, &queries_), "vkCreateQueryPool");
  }
}

void Queue::close() {
  if (!device_) return;
  up_ring_.clear();
  down_ring_.clear();
  device_->vk.vkDestroyQueryPool(device_->handle, queries_, nullptr);
  device_->vk.vkDestroySemaphore(device_->handle, timeline_, nullptr);
  device_->vk.vkDestroyCommandPool(device_->handle, pool_, nullptr);
}

// Command buffers are used once per execute(), which resets them all at its start.
VkCommandBuffer Queue::begin() {
  if (recorded_ == commands_.size()) {
    const VkCommandBufferAllocateInfo allocate{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                               .commandPool = pool_,
                                               .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                               .commandBufferCount = 1};
    VkCommandBuffer made;
    check(device_->vk.vkAllocateCommandBuffers(device_->handle, &allocate, &made), "vkAllocateCommandBuffers");
    commands_.push_back(made);
  }
  const VkCommandBuffer commands = commands_[recorded_++];
  const VkCommandBufferBeginInfo once{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                      .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
  check(device_->vk.vkBeginCommandBuffer(commands, &once), "vkBeginCommandBuffer");
  return commands;
}

void Queue::submit(VkCommandBuffer commands) {
  check(device_->vk.vkEndCommandBuffer(commands), "vkEndCommandBuffer");
  const std::uint64_t value = value_ + 1;
  const VkTimelineSemaphoreSubmitInfo timeline{.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
                                               .signalSemaphoreValueCount = 1,
                                               .pSignalSemaphoreValues = &value};
  const VkSubmitInfo info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                          .pNext = &timeline,
                          .commandBufferCount = 1,
                          .pCommandBuffers = &commands,
                          .signalSemaphoreCount = 1,
                          .pSignalSemaphores = &timeline_};
  const VkResult result =
      injected("submit") ? VK_ERROR_DEVICE_LOST : device_->vk.vkQueueSubmit(queue_, 1, &info, VK_NULL_HANDLE);
  if (result == VK_ERROR_DEVICE_LOST) device_->lose("while work was submitted to it");
  check(result, "vkQueueSubmit");
  value_ = value;
  ++device_->counters.submits;
}

void Queue::wait(std::uint64_t value) {
  const VkSemaphoreWaitInfo info{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                 .semaphoreCount = 1,
                                 .pSemaphores = &timeline_,
                                 .pValues = &value};
  VkResult result = device_->vk.vkWaitSemaphores(device_->handle, &info, ~std::uint64_t{0});
  if (injected("wait")) result = VK_ERROR_DEVICE_LOST;
  if (result == VK_ERROR_DEVICE_LOST) device_->lose("while work ran on it");
  check(result, "vkWaitSemaphores");
}

Slot& Queue::slot(std::vector<Slot>& ring, std::size_t batch, Use use) {
  const std::size_t index = batch % kSlots;
  while (ring.size() <= index) ring.push_back({OwnedBuffer(*device_, use, kSlotBytes)});
  return ring[index];
}

void Queue::record_dispatches(VkCommandBuffer commands, const std::vector<Stage>& stages) {
  if (queries_) {
    device_->vk.vkCmdResetQueryPool(commands, queries_, 0, 2);
    device_->vk.vkCmdWriteTimestamp(commands, VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, queries_, 0);
  }
  for (const Stage& stage : stages) {
    // Before the first one too: an earlier submission may have written what it reads.
    barrier(*device_, commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
            VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT);
    for (const Dispatch& dispatch : stage) {
      device_->vk.vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, dispatch.pipeline);
      device_->vk.vkCmdPushConstants(commands, device_->pipeline_layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                                     dispatch.push_bytes, dispatch.push.data());
      const std::uint32_t x = std::min(dispatch.groups, device_->max_groups);
      device_->vk.vkCmdDispatch(commands, x, (dispatch.groups + x - 1) / x, 1);
      ++device_->counters.dispatches;
    }
  }
  if (queries_) device_->vk.vkCmdWriteTimestamp(commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, queries_, 1);
}

void Queue::execute(const std::vector<Transfer>& up, const std::vector<Stage>& stages,
                    const std::vector<Transfer>& down) {
  check(device_->vk.vkResetCommandPool(device_->handle, pool_, 0), "vkResetCommandPool");
  recorded_ = 0;
  const std::vector<Batch> ups = batches(up), downs = batches(down);
  // All memory first: once something is submitted, nothing may fail for want of it.
  for (std::size_t k = 0; k < std::min(kSlots, ups.size()); ++k) slot(up_ring_, k, Use::upload);
  for (std::size_t k = 0; k < std::min(kSlots, downs.size()); ++k) slot(down_ring_, k, Use::readback);

  // What does not fit in the ring goes first, in submissions of its own; the rest goes with the dispatches.
  VkCommandBuffer commands = begin();
  for (std::size_t k = 0; k < ups.size(); ++k) {
    Slot& to = slot(up_ring_, k, Use::upload);
    if (to.busy_until > 0) wait(to.busy_until);
    to.busy_until = 0;
    for (const auto& [transfer, in_slot] : ups[k]) {
      std::memcpy(to.buffer->mapped + in_slot, transfer.host, transfer.size);
      device_->counters.bytes_up += transfer.size;
    }
    record_copies(*device_, commands, *to.buffer, ups[k], true);
    if (k + kSlots < ups.size()) {
      submit(commands);
      to.busy_until = value_;
      commands = begin();
    }
  }
  if (!ups.empty())
    barrier(*device_, commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
            VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT);
  if (!stages.empty()) record_dispatches(commands, stages);
  if (!downs.empty())
    barrier(*device_, commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
            VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT,
            VK_ACCESS_TRANSFER_READ_BIT);

  const auto record_down = [&](VkCommandBuffer into, std::size_t k) {
    record_copies(*device_, into, *slot(down_ring_, k, Use::readback).buffer, downs[k], false);
  };
  for (std::size_t k = 0; k < std::min(kSlots, downs.size()); ++k) record_down(commands, k);
  const auto to_host = [&](VkCommandBuffer of) {
    barrier(*device_, of, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
            VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT, VK_PIPELINE_STAGE_HOST_BIT,
            VK_ACCESS_HOST_READ_BIT);
  };
  to_host(commands);
  submit(commands);
  for (Slot& used : up_ring_) used.busy_until = 0;  // the wait below is for all of them

  std::vector<std::uint64_t> ready(downs.size(), value_);
  if (downs.empty()) wait(value_);
  for (std::size_t k = 0; k < downs.size(); ++k) {
    wait(ready[k]);
    for (const auto& [transfer, in_slot] : downs[k]) {
      std::memcpy(transfer.host, down_ring_[k % kSlots].buffer->mapped + in_slot, transfer.size);
      device_->counters.bytes_down += transfer.size;
    }
    if (k + kSlots < downs.size()) {
      const VkCommandBuffer next = begin();
      record_down(next, k + kSlots);
      to_host(next);
      submit(next);
      ready[k + kSlots] = value_;
    }
  }
  if (queries_ && !stages.empty()) {
    std::uint64_t ticks[2] = {};
    device_->vk.vkGetQueryPoolResults(device_->handle, queries_, 0, 2, sizeof ticks, ticks, sizeof ticks[0],
                                      VK_QUERY_RESULT_64_BIT);
    last_ns = static_cast<std::uint64_t>(static_cast<double>((ticks[1] - ticks[0]) & timestamp_mask_) * ns_per_tick_);
  }
}

}  // namespace grilly::vulkan
