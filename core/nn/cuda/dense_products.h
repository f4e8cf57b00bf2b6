#pragma once

#include <vector>

#include "core/nn/cuda/device_model.h"
#include "core/nn/model_spec.h"

/// The products of a model that a whole chunk of a prompt may take through kernels::cuda::DenseLinear: those of which
/// the host knows that every row takes them. Chosen experts are not among them; routers, gates of shared experts and
/// the output head are small there, or not asked for.
namespace specmoe::nn::cuda {

std::vector<kernels::cuda::DeviceMatrix> dense_products(const DeviceModel& model);

/// The same of a model that is not loaded yet: shapes alone.
std::vector<kernels::cuda::DeviceMatrix> dense_products(const ModelSpec& spec, kernels::DType dtype);

}  // namespace specmoe::nn::cuda
