#include "kernels/cuda/runtime.h"

#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "tests/cuda_emulation/cuda_emulation.h"

/// kernels/cuda/runtime.h on the emulator: one device whose memory is the host's, work done as soon as it is queued.
namespace specmoe::kernels::cuda {
namespace {
using Work = std::function<void()>;
}

struct Stream::State {
  std::vector<Work>* recording = nullptr;

  void queue(Work work) {
    if (recording != nullptr) {
      recording->push_back(std::move(work));
    } else {
      work();
    }
  }
};

int device_count() { return 1; }

DeviceInfo device_info(int device) {
  SPECMOE_CHECK(device == 0, "CUDA device ", device, " does not exist; the emulation has one, number 0");
  constexpr std::size_t kBytes = std::size_t{1} << 30;
  return {"emulation", 2, 80, kBytes, kBytes};
}

Stream::Stream(int) : state_(std::make_unique<State>()) {}
Stream::~Stream() = default;
void Stream::synchronize() {
  SPECMOE_CHECK(state_->recording == nullptr, "cannot wait for a stream that is being recorded");
}
void Stream::copy(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;  // nothing may come from nowhere, which memcpy does not take
  state_->queue([=] { std::memcpy(to, from, bytes); });
}
void Stream::zero(void* memory, std::size_t bytes) {
  state_->queue([=] { std::memset(memory, 0, bytes); });
}

struct Graph::State {
  std::vector<Work> work;
};

Graph::Graph() = default;
Graph::~Graph() = default;
Graph::Graph(Graph&&) noexcept = default;
Graph& Graph::operator=(Graph&&) noexcept = default;

void Graph::record(Stream& stream, const std::function<void()>& work) {
  state_ = std::make_unique<State>();
  stream.state().recording = &state_->work;
  work();
  stream.state().recording = nullptr;
}
void Graph::launch(Stream&) {
  for (const Work& work : state_->work) work();
}

/// Filled with NaN, and for indices with far too large numbers: what is never written must not look right.
void* allocate_device(std::size_t bytes, int) {
  void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256 + 256);
  SPECMOE_CHECK(memory != nullptr, "out of memory: wanted ", bytes, " bytes");
  std::memset(memory, 0x7f, bytes);
  return memory;
}
void free_device(void* memory) { std::free(memory); }

void queue_grid(unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned threads, std::size_t shared_bytes,
                Stream& stream, std::function<void()> body) {
  stream.state().queue(
      [=, body = std::move(body)] { cuda_emulation::run_grid({grid_x, grid_y, grid_z}, threads, shared_bytes, body); });
}

}  // namespace specmoe::kernels::cuda
