#include "tests/cuda_emulation/planted_faults.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"

namespace specmoe::kernels::cuda {
namespace {

constexpr int kThreads = 64;

/// Each thread hands its number to its left neighbour through shared memory.
__global__ void neighbours(float* out, bool faulty) {
  float* cells = SharedArena().take<float>(kThreads);
  cells[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (!faulty) __syncthreads();
  out[threadIdx.x] = cells[(threadIdx.x + 1) % kThreads];
}

/// The same in one warp.
__global__ void warp_neighbours(float* out, bool faulty) {
  float* cells = SharedArena().take<float>(kWarp);
  cells[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (!faulty) __syncwarp();
  out[threadIdx.x] = cells[(threadIdx.x + 1) % kWarp];
}

/// All read the first number; then its owner writes it. Threads that end before others begin are not ordered with them.
__global__ void overwritten(float* out, bool faulty) {
  const bool untouched = out[0] > 0.0f;
  if (!faulty) __syncthreads();
  out[threadIdx.x] = !untouched ? 2.0f : threadIdx.x == 0 ? -1.0f : 1.0f;
}

/// Copies through shared memory, each thread its own four numbers. The fault: waiting for one group too few.
__global__ void copied(const float* in, float* out, bool faulty) {
  float* cells = SharedArena().take<float>(8 * kThreads);
  float* first = cells + 4 * threadIdx.x;
  float* second = first + 4 * kThreads;
  copy_async<16>(first, in + 4 * threadIdx.x, true);
  commit_copies();
  copy_async<16>(second, in + 4 * threadIdx.x, false);
  commit_copies();
  if (faulty) {
    wait_for_copies<2>();
  } else {
    wait_for_copies<1>();
  }
  out[threadIdx.x] = first[0] + first[3];
  wait_for_copies<0>();
}

/// The last block to come adds up what all have written.
__global__ void handed_over(float* partial, unsigned* counter, float* out, bool faulty) {
  unsigned* ticket = SharedArena().take<unsigned>(1);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = static_cast<float>(blockIdx.x + 1);
    *ticket = faulty ? atomicAdd(counter, 1u) : take_ticket(counter);
  }
  __syncthreads();
  if (*ticket + 1 < gridDim.x || threadIdx.x != 0) return;
  float sum = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += partial[i];
  *out = sum;
}

/// Half of the threads come to the barrier.
__global__ void divided(float* out, bool faulty) {
  if (!faulty || threadIdx.x < kThreads / 2) __syncthreads();
  out[threadIdx.x] = 1;
}

/// Both halves come to a barrier, but not to the same one.
__global__ void parted(float* out, bool faulty) {
  if (faulty && threadIdx.x < kThreads / 2) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

/// A lane that the mask names has left.
__global__ void absent_lane(float* out, bool faulty) {
  if (faulty && threadIdx.x == 5) return;
  out[threadIdx.x] = __shfl_xor_sync(kAllLanes, static_cast<float>(threadIdx.x), 1);
}

/// Sums what it never wrote.
__global__ void uninitialised(float* out, bool faulty) {
  float* cells = SharedArena().take<float>(kThreads);
  if (!faulty || threadIdx.x != 3) cells[threadIdx.x] = 1;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < kThreads; ++i) sum += cells[i];
  out[threadIdx.x] = sum;
}

/// Writes one element past its shared memory.
__global__ void past_the_end(float* out, bool faulty) {
  float* cells = SharedArena().take<float>(kThreads);
  cells[threadIdx.x + (faulty ? 1 : 0)] = 1;
  out[threadIdx.x] = 1;
}

/// Waits for a block that comes later.
__global__ void waits_for_later(unsigned* counter, float* out, bool faulty) {
  if (blockIdx.x + 1 == gridDim.x || !faulty) take_ticket(counter);
  while (atomicAdd(counter, 0u) == 0) {
  }
  out[blockIdx.x] = 1;
}

std::vector<float> fetch(Stream& stream, const float* from, std::size_t count) {
  std::vector<float> values(count);
  stream.copy(values.data(), from, count * sizeof(float));
  stream.synchronize();
  return values;
}

template <void (*kKernel)(float*, bool), unsigned kBlock, std::size_t kShared>
std::vector<float> run_alone(bool faulty) {
  Stream stream;
  const DeviceArray<float> out(kBlock);
  launch(kKernel, 1, kBlock, kShared, stream, out.data(), faulty);
  return fetch(stream, out.data(), kBlock);
}

std::vector<float> run_copied(bool faulty) {
  Stream stream;
  std::vector<float> in(4 * kThreads);
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i);
  const DeviceArray<float> source(in.size()), out(kThreads);
  stream.copy(source.data(), in.data(), in.size() * sizeof(float));
  launch(copied, 1, kThreads, 8 * kThreads * sizeof(float), stream, source.data(), out.data(), faulty);
  return fetch(stream, out.data(), kThreads);
}

std::vector<float> run_handed_over(bool faulty) {
  Stream stream;
  const DeviceArray<float> partial(16), out(1);
  const DeviceArray<unsigned> counter(1);
  stream.zero(counter.data(), sizeof(unsigned));
  launch(handed_over, 16, kWarp, 16, stream, partial.data(), counter.data(), out.data(), faulty);
  return fetch(stream, out.data(), 1);
}

std::vector<float> run_waits_for_later(bool faulty) {
  Stream stream;
  const DeviceArray<float> out(4);
  const DeviceArray<unsigned> counter(1);
  stream.zero(counter.data(), sizeof(unsigned));
  launch(waits_for_later, 4, 1, 0, stream, counter.data(), out.data(), faulty);
  return fetch(stream, out.data(), 4);
}

template <class Function>
std::vector<float> numbers(int count, const Function& value) {
  std::vector<float> result;
  for (int i = 0; i < count; ++i) result.push_back(static_cast<float>(value(i)));
  return result;
}

}  // namespace

std::vector<Planted> planted_faults() {
  constexpr std::size_t kCells = kThreads * sizeof(float);
  const auto ones = numbers(kThreads, [](int) { return 1; });
  return {
      {"missing_barrier", run_alone<neighbours, kThreads, kCells>,
       numbers(kThreads, [](int i) { return (i + 1) % kThreads; }), true},
      {"missing_warp_barrier", run_alone<warp_neighbours, kWarp, kCells>,
       numbers(kWarp, [](int i) { return (i + 1) % kWarp; }), true},
      {"overwritten", run_alone<overwritten, kThreads, 0>, numbers(kThreads, [](int i) { return i == 0 ? -1 : 1; }),
       true},
      {"missing_wait", run_copied, numbers(kThreads, [](int i) { return 8 * i + 3; }), false},
      {"unordered_hand_over", run_handed_over, {136}, true},
      {"divergent_barrier", run_alone<divided, kThreads, 0>, ones, false},
      {"two_barriers", run_alone<parted, kThreads, 0>, ones, false},
      {"absent_lane", run_alone<absent_lane, kWarp, 0>, numbers(kWarp, [](int i) { return i ^ 1; }), false},
      {"uninitialised_shared_memory", run_alone<uninitialised, kThreads, kCells>,
       numbers(kThreads, [](int) { return kThreads; }), false},
      {"past_the_end", run_alone<past_the_end, kThreads, kCells>, ones, false},
      {"waits_for_later_block", run_waits_for_later, {1, 1, 1, 1}, false},
  };
}

}  // namespace specmoe::kernels::cuda
