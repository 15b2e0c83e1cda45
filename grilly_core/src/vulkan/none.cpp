// A build without Vulkan: there is nothing to list, and the reason says what would change that.

#include "grilly/device.h"
#include "grilly/errors.h"

namespace grilly {

VulkanListing vulkan_devices() { return {{}, GRILLY_NO_VULKAN}; }
std::shared_ptr<Device> open_vulkan(std::size_t) { throw DeviceUnavailable(GRILLY_NO_VULKAN); }
std::vector<std::string> take_vulkan_messages() { return {}; }
void close_vulkan() {}

}  // namespace grilly
