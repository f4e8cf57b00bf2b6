#pragma once

#include <functional>
#include <type_traits>

#include "kernels/cuda/device.h"
#include "kernels/cuda/runtime.h"

namespace specmoe::kernels::cuda {

/// Queues kernel(args...) on `stream` for a grid of blocks of `threads` threads. Throws Error when the device refuses
/// it.
template <class... Parameters>
void launch(void (*kernel)(Parameters...), dim3 grid, unsigned threads, std::size_t shared_bytes, Stream& stream,
            std::type_identity_t<Parameters>... args) {
#ifdef __CUDACC__
  void* pointers[] = {const_cast<void*>(static_cast<const void*>(&args))..., nullptr};
  launch_kernel(reinterpret_cast<const void*>(kernel), grid.x, grid.y, grid.z, threads, shared_bytes, stream, pointers);
#else
  queue_grid(grid.x, grid.y, grid.z, threads, shared_bytes, stream, [=] { kernel(args...); });
#endif
}

}  // namespace specmoe::kernels::cuda
