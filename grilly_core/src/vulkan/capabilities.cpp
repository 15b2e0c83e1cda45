// What a physical device is, what it lacks, and which of its limits matter here.

#include "vulkan.h"

#include <cstdio>

namespace grilly::vulkan {
namespace {

std::string type_name(VkPhysicalDeviceType type) {
  switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU: return "discrete";
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU: return "integrated";
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU: return "virtual";
    case VK_PHYSICAL_DEVICE_TYPE_CPU: return "cpu";
    default: return "other";
  }
}

std::string version(std::uint32_t v) {
  return std::to_string(VK_API_VERSION_MAJOR(v)) + "." + std::to_string(VK_API_VERSION_MINOR(v)) + "." +
         std::to_string(VK_API_VERSION_PATCH(v));
}

std::string hex(const std::uint8_t* bytes, std::size_t count) {
  std::string text;
  for (std::size_t i = 0; i < count; ++i) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", bytes[i]);
    text += two;
    if (i == 3 || i == 5 || i == 7 || i == 9) text += '-';
  }
  return text;
}

// Memory that the host reads at full speed too: cached, and on a GPU with memory of its own not across the bus.
bool has_shared_memory(VkPhysicalDevice physical, VkPhysicalDeviceType type) {
  VkPhysicalDeviceMemoryProperties memory;
  vkGetPhysicalDeviceMemoryProperties(physical, &memory);
  constexpr VkMemoryPropertyFlags host =
      VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT | VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
  const bool one_memory = type == VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU || type == VK_PHYSICAL_DEVICE_TYPE_CPU;
  for (std::uint32_t i = 0; i < memory.memoryTypeCount; ++i)
    if (one_memory && (memory.memoryTypes[i].propertyFlags & host) == host) return true;
  return false;
}

}  // namespace

DeviceInfo describe(VkPhysicalDevice physical, bool force_staging) {
  VkPhysicalDeviceDriverProperties driver{.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES};
  VkPhysicalDeviceMaintenance3Properties sizes{.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES,
                                               .pNext = &driver};
  VkPhysicalDeviceIDProperties id{.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES, .pNext = &sizes};
  VkPhysicalDeviceProperties2 properties{.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &id};
  VkPhysicalDeviceVulkan12Features have12{.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES};
  VkPhysicalDeviceFeatures2 have{.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &have12};
  vkGetPhysicalDeviceProperties(physical, &properties.properties);
  const bool recent = properties.properties.apiVersion >= VK_API_VERSION_1_2;
  if (recent) {
    vkGetPhysicalDeviceProperties2(physical, &properties);
    vkGetPhysicalDeviceFeatures2(physical, &have);
  }

  const VkPhysicalDeviceProperties& p = properties.properties;
  DeviceInfo info;
  info.name = p.deviceName;
  info.type = type_name(p.deviceType);
  info.uuid = hex(id.deviceUUID, VK_UUID_SIZE);
  info.api_version = version(p.apiVersion);
  info.driver = recent ? std::string(driver.driverName) + " " + driver.driverInfo : "";
  info.float64 = have.features.shaderFloat64;
  info.shares_memory = !force_staging && has_shared_memory(physical, p.deviceType);
  info.limits = {{"max_groups", p.limits.maxComputeWorkGroupCount[0]},
                 {"max_allocation_bytes", sizes.maxMemoryAllocationSize},
                 {"max_storage_buffer_bytes", p.limits.maxStorageBufferRange},
                 {"max_push_constant_bytes", p.limits.maxPushConstantsSize},
                 {"max_allocations", p.limits.maxMemoryAllocationCount}};

  std::string missing;
  const auto need = [&](bool there, const char* feature) {
    if (!there) missing += (missing.empty() ? "" : ", ") + std::string(feature);
  };
  if (!recent) {
    info.reason = "it supports Vulkan " + info.api_version + ", and 1.2 is needed: update its driver";
    return info;
  }
  need(have.features.shaderInt64, "shaderInt64");
  need(have12.bufferDeviceAddress, "bufferDeviceAddress");
  need(have12.scalarBlockLayout, "scalarBlockLayout");
  need(have12.timelineSemaphore, "timelineSemaphore");
  if (!missing.empty()) info.reason = "its driver lacks " + missing + ": update the driver, or use device='cpu'";
  return info;
}

}  // namespace grilly::vulkan
