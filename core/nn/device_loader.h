#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/language_model.h"
#include "core/nn/model_loader.h"
#include "core/nn/model_spec.h"
#include "core/nn/tensor_map.h"
#include "kernels/thread_pool.h"

namespace specmoe::nn {

/// Which CUDA device a name means: "cuda" is "cuda:0"; nothing for "cpu". Throws Error for every other name.
std::optional<int> cuda_device(const std::string& name);

/// Puts a mapped checkpoint on a CUDA device. Throws Error when the model's family or its size is more than the device
/// has. pool: for packing on the host.
using DeviceLoader = std::shared_ptr<LanguageModel> (*)(ModelSpec spec, const ModelTensors& tensors,
                                                        const LoadOptions& options, int device,
                                                        kernels::ThreadPool& pool);

/// The logits [rows, V] of the last pass of a model that this loaded, on its device, in memory of their own.
using DeviceLogits = std::shared_ptr<float> (*)(LanguageModel& model);

/// The CUDA part of the library, where it is built, adds its own when the program starts.
struct DeviceLoaderRegistration {
  DeviceLoaderRegistration(DeviceLoader loader, DeviceLogits logits);
};

/// Throws Error that says how to build it in a build without CUDA.
DeviceLoader device_loader();

/// As DeviceLogits, of a model on a device.
std::shared_ptr<float> device_logits(LanguageModel& model);

}  // namespace specmoe::nn
