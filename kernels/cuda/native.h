#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/runtime.h"

/// For sources that only nvcc compiles, because they call CUDA's own libraries.
namespace specmoe::kernels::cuda {

/// CUDA's name of a stream. Its device is from now on the one that this thread's calls mean.
cudaStream_t native_stream(Stream& stream);

}  // namespace specmoe::kernels::cuda
