// Memory: one allocation per large buffer, shared blocks for small arrays, and the map from host to device addresses.

#include "vulkan.h"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace grilly::vulkan {
namespace {

constexpr VkDeviceSize kSmall = VkDeviceSize{1} << 20;  // arrays below this come from blocks
constexpr VkDeviceSize kBlockBytes = VkDeviceSize{4} << 20;
constexpr VkDeviceSize kCacheLine = 64;

// Properties to look for, best first.
std::vector<VkMemoryPropertyFlags> preferences(Use use) {
  constexpr VkMemoryPropertyFlags device = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
  constexpr VkMemoryPropertyFlags host = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
  constexpr VkMemoryPropertyFlags cached = VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
  switch (use) {
    case Use::device: return {device, 0};
    case Use::shared: return {device | host | cached, host | cached};
    case Use::upload: return {host | device, host};
    // Uncached memory is some ten times slower to read, but not every device has better.
    case Use::readback: return {host | cached, host};
  }
  return {};
}

// An array in mapped memory.
struct MappedArray final : Memory {
  MappedArray(std::shared_ptr<Device> device_, std::shared_ptr<Block> block_, VkDeviceSize at, std::size_t bytes)
      : device(std::move(device_)), block(std::move(block_)) {
    data = block->buffer->mapped + at;
    size = bytes;
  }
  std::shared_ptr<Device> device;  // before block: destroyed after it
  std::shared_ptr<Block> block;
};

// Where the device has no memory that the host reads fast: the host's own.
struct HostArray final : Memory {
  HostArray(std::shared_ptr<Device> device_, std::size_t bytes) : device(std::move(device_)) {
    data = ::operator new (std::max<std::size_t>(bytes, 1), std::align_val_t{kCacheLine}, std::nothrow);
    if (!data) throw OutOfDeviceMemory("the system refused " + std::to_string(bytes) + " bytes of host memory");
    size = bytes;
    device->counters.bytes_allocated += size;
  }
  ~HostArray() override {
    ::operator delete (data, std::align_val_t{kCacheLine});
    device->counters.bytes_allocated -= size;
  }
  std::shared_ptr<Device> device;
};

}  // namespace

Buffer VulkanDevice::create_buffer(Use use, VkDeviceSize bytes) {
  require_usable();
  const auto refuse = [&](const std::string& why) {
    throw OutOfDeviceMemory(info.name + ": " + std::to_string(bytes) + " bytes asked for, " +
                            std::to_string(counters.bytes_allocated.load()) + " in use; " + why);
  };
  if (bytes > max_allocation)
    refuse("the device allows " + std::to_string(max_allocation) + " bytes in one allocation");
  if (const char* limit = std::getenv("GRILLY_MEMORY_LIMIT");
      limit && counters.bytes_allocated + bytes > std::strtoull(limit, nullptr, 10))
    refuse("GRILLY_MEMORY_LIMIT=" + std::string(limit));

  Buffer buffer;
  buffer.size = bytes;
  const VkBufferCreateInfo create{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                  .size = bytes,
                                  .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                                           VK_BUFFER_USAGE_TRANSFER_DST_BIT |
                                           VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT};
  check(vk.vkCreateBuffer(handle, &create, nullptr, &buffer.handle), "vkCreateBuffer");
  VkMemoryRequirements needs;
  vk.vkGetBufferMemoryRequirements(handle, buffer.handle, &needs);

  const VkMemoryAllocateFlagsInfo flags{.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                        .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
  VkMemoryAllocateInfo allocate{
      .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .pNext = &flags, .allocationSize = needs.size};
  VkResult result = VK_ERROR_OUT_OF_DEVICE_MEMORY;
  for (const VkMemoryPropertyFlags wanted : preferences(use)) {
    for (std::uint32_t type = 0; type < memory_types.memoryTypeCount && result != VK_SUCCESS; ++type) {
      const VkMemoryType& memory = memory_types.memoryTypes[type];
      // Some drivers grant more than a heap holds and fail at use: compare first.
      if (!(needs.memoryTypeBits >> type & 1) || (memory.propertyFlags & wanted) != wanted ||
          needs.size > memory_types.memoryHeaps[memory.heapIndex].size)
        continue;
      allocate.memoryTypeIndex = type;
      result = vk.vkAllocateMemory(handle, &allocate, nullptr, &buffer.memory);
    }
    if (result == VK_SUCCESS) break;
  }
  if (result == VK_SUCCESS) result = vk.vkBindBufferMemory(handle, buffer.handle, buffer.memory, 0);
  if (result == VK_SUCCESS && use != Use::device) {
    void* mapped = nullptr;
    result = vk.vkMapMemory(handle, buffer.memory, 0, VK_WHOLE_SIZE, 0, &mapped);
    buffer.mapped = static_cast<char*>(mapped);
  }
  if (result != VK_SUCCESS) {
    vk.vkDestroyBuffer(handle, buffer.handle, nullptr);
    vk.vkFreeMemory(handle, buffer.memory, nullptr);
    refuse("the driver refused with VkResult " + std::to_string(result));
  }
  const VkBufferDeviceAddressInfo of{.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO, .buffer = buffer.handle};
  buffer.address = vk.vkGetBufferDeviceAddress(handle, &of);
  counters.bytes_allocated += buffer.size;
  ++counters.allocations;
  return buffer;
}

void VulkanDevice::destroy_buffer(Buffer& buffer) {
  vk.vkDestroyBuffer(handle, buffer.handle, nullptr);
  vk.vkFreeMemory(handle, buffer.memory, nullptr);
  counters.bytes_allocated -= buffer.size;
}

OwnedBuffer::OwnedBuffer(VulkanDevice& device, Use use, VkDeviceSize bytes)
    : device_(&device), buffer_(device.create_buffer(use, bytes)) {
  if (use == Use::shared) device_->addresses.add(buffer_);
}

OwnedBuffer& OwnedBuffer::operator=(OwnedBuffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(buffer_, other.buffer_);
  return *this;
}

OwnedBuffer::~OwnedBuffer() {
  if (!device_ || device_->in_child()) return;
  device_->addresses.remove(buffer_);
  device_->destroy_buffer(buffer_);
}

void AddressBook::add(const Buffer& buffer) {
  const std::lock_guard lock(mutex_);
  by_host_address_.emplace(reinterpret_cast<std::uintptr_t>(buffer.mapped), buffer);
}

void AddressBook::remove(const Buffer& buffer) {
  const std::lock_guard lock(mutex_);
  const auto at = by_host_address_.find(reinterpret_cast<std::uintptr_t>(buffer.mapped));
  if (at != by_host_address_.end() && at->second.handle == buffer.handle) by_host_address_.erase(at);
}

std::optional<VkDeviceAddress> AddressBook::find(const void* host, std::uint64_t bytes) const {
  const std::lock_guard lock(mutex_);
  const auto begin = reinterpret_cast<std::uintptr_t>(host);
  auto at = by_host_address_.upper_bound(begin);
  if (at == by_host_address_.begin()) return {};
  --at;
  const std::uint64_t offset = begin - at->first;
  if (offset + bytes > at->second.size) return {};
  const VkDeviceAddress address = at->second.address + offset;
  if (address % kAddressAlignment != 0) return {};
  return address;
}

std::shared_ptr<Memory> VulkanDevice::allocate(std::size_t bytes) {
  require_usable();
  const auto self = std::static_pointer_cast<VulkanDevice>(shared_from_this());
  if (!info.shares_memory) return std::make_shared<HostArray>(self, bytes);
  const auto make_block = [&](VkDeviceSize size) {
    return std::make_shared<Block>(Block{.buffer = OwnedBuffer(*this, Use::shared, size)});
  };
  if (bytes >= kSmall) return std::make_shared<MappedArray>(self, make_block(bytes), 0, bytes);

  const VkDeviceSize room = std::max<VkDeviceSize>(round_up(bytes, kCacheLine), kCacheLine);
  const std::lock_guard lock(block_mutex_);
  std::shared_ptr<Block> block = open_block_.lock();
  if (!block || block->used + room > block->buffer->size) open_block_ = block = make_block(kBlockBytes);
  auto array = std::make_shared<MappedArray>(self, block, block->used, bytes);
  block->used += room;
  return array;
}

}  // namespace grilly::vulkan
