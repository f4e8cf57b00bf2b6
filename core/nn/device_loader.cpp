#include "core/nn/device_loader.h"

#include <charconv>

#include "kernels/check.h"

namespace specmoe::nn {
namespace {

constinit DeviceLoader registered = nullptr;
constinit DeviceLogits registered_logits = nullptr;

}  // namespace

std::optional<int> cuda_device(const std::string& name) {
  if (name == "cpu") return std::nullopt;
  if (name == "cuda") return 0;
  const std::string prefix = "cuda:";
  int device = 0;
  const char* end = name.data() + name.size();
  const bool numbered = name.starts_with(prefix) && name.size() > prefix.size() && name[prefix.size()] != '-';
  const auto [rest, error] = numbered ? std::from_chars(name.data() + prefix.size(), end, device)
                                      : std::from_chars_result{name.data(), std::errc::invalid_argument};
  SPECMOE_CHECK(error == std::errc() && rest == end, "device '", name, "' is not known; known: cpu, cuda, cuda:NUMBER");
  return device;
}

DeviceLoaderRegistration::DeviceLoaderRegistration(DeviceLoader loader, DeviceLogits logits) {
  registered = loader;
  registered_logits = logits;
}

DeviceLoader device_loader() {
  SPECMOE_CHECK(registered != nullptr,
                "device 'cuda': this build has the CPU only; build it with `cmake --preset cuda && cmake --build "
                "--preset cuda`, or use device cpu");
  return registered;
}

std::shared_ptr<float> device_logits(LanguageModel& model) {
  device_loader();
  return registered_logits(model);
}

}  // namespace specmoe::nn
