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

constexpr std::size_t kDeviceBytes = std::size_t{256} << 20;
constexpr std::size_t kHeader = 256;  // in front of every allocation: its size
std::size_t allocated_bytes = 0;

}  // namespace

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
  return {"emulation", 2, 80, kDeviceBytes, kDeviceBytes - allocated_bytes};
}

Stream::Stream(int) : state_(std::make_unique<State>()) {}
Stream::~Stream() = default;
int Stream::device() const { return 0; }
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
  bool loops = false;
  unsigned goes_on = 0;
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
void Graph::record_loop(Stream& stream, const std::function<void(LoopFlag)>& work) {
  record(stream, [&] { work({reinterpret_cast<std::uint64_t>(&state_->goes_on)}); });
  state_->loops = true;
}
/// In every launch nothing is chosen at first. What is queued for that keeps the flag alive, as long as the graph.
ChoiceFlag new_choice(Stream& stream) {
  SPECMOE_CHECK(stream.state().recording != nullptr, "CUDA graph: a choice outside of what is recorded");
  const auto chosen = std::make_shared<unsigned>();
  stream.state().queue([chosen] { *chosen = ~0U; });
  return {reinterpret_cast<std::uint64_t>(chosen.get())};
}

void queue_choice(Stream& stream, ChoiceFlag choice, int count, const std::function<void(int)>& work) {
  Stream::State& state = stream.state();
  std::vector<std::vector<Work>> parts(static_cast<std::size_t>(count));
  std::vector<Work>* outer = state.recording;
  for (int i = 0; i < count; ++i) {
    state.recording = &parts[static_cast<std::size_t>(i)];
    work(i);
  }
  state.recording = outer;
  state.queue([parts = std::move(parts), chosen = reinterpret_cast<const unsigned*>(choice.handle)] {
    SPECMOE_CHECK(*chosen < parts.size(), "CUDA graph: part ", *chosen, " of ", parts.size(), " was chosen");
    for (const Work& part : parts[*chosen]) part();
  });
}

void Graph::launch(Stream&) {
  do {
    for (const Work& work : state_->work) work();
  } while (state_->loops && state_->goes_on != 0);
}

/// Filled with NaN, and for indices with far too large numbers: what is never written must not look right.
void* allocate_device(std::size_t bytes, int) {
  const std::size_t rounded = (bytes + kHeader - 1) / kHeader * kHeader + kHeader;
  SPECMOE_CHECK(rounded <= kDeviceBytes - allocated_bytes, "out of memory: wanted ", bytes, " bytes, free are ",
                kDeviceBytes - allocated_bytes);
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kHeader, rounded + kHeader));
  SPECMOE_CHECK(memory != nullptr, "out of memory: wanted ", bytes, " bytes");
  std::memcpy(memory, &rounded, sizeof(rounded));
  std::memset(memory + kHeader, 0x7f, rounded);
  allocated_bytes += rounded;
  return memory + kHeader;
}
void free_device(void* memory) {
  if (memory == nullptr) return;
  std::byte* begin = static_cast<std::byte*>(memory) - kHeader;
  std::size_t bytes = 0;
  std::memcpy(&bytes, begin, sizeof(bytes));
  allocated_bytes -= bytes;
  std::free(begin);
}

void* allocate_host(std::size_t bytes) { return std::malloc(bytes); }
void free_host(void* memory) { std::free(memory); }

void queue_grid(unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned threads, std::size_t shared_bytes,
                Stream& stream, std::function<void()> body) {
  stream.state().queue(
      [=, body = std::move(body)] { cuda_emulation::run_grid({grid_x, grid_y, grid_z}, threads, shared_bytes, body); });
}

}  // namespace specmoe::kernels::cuda
