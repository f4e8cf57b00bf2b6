#include "kernels/cuda/runtime.h"

#include <cuda_runtime.h>

#include <utility>
#include <vector>

#include "kernels/check.h"
#include "kernels/cuda/native.h"

namespace specmoe::kernels::cuda {
namespace {

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // what can be forgotten is, and the process goes on
  fail(call, ": ", cudaGetErrorName(status), ", ", cudaGetErrorString(status),
       "; try again, or use device cpu: after a fault of a kernel the device takes no more work from this process");
}

#define SPECMOE_CUDA_CHECK(call) check((call), #call)

/// Calls mean the device that this thread used last, whoever set it.
void use(int device) { SPECMOE_CUDA_CHECK(cudaSetDevice(device)); }

double gigabytes(std::size_t bytes) { return static_cast<double>(bytes) / 1e9; }

}  // namespace

struct Stream::State {
  int device = 0;
  cudaStream_t stream = nullptr;
};

struct Graph::State {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  ~State() {
    if (ready != nullptr) cudaGraphExecDestroy(ready);
    if (graph != nullptr) cudaGraphDestroy(graph);
  }
};

int device_count() {
  int count = 0;
  // No driver and no device are the same to those who ask.
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return 0;
  }
  return count;
}

DeviceInfo device_info(int device) {
  const int count = device_count();
  SPECMOE_CHECK(device >= 0 && device < count, "CUDA device ", device, " does not exist: this machine has ", count,
                "; use --device cpu, or a device that is there");
  cudaDeviceProp properties{};
  SPECMOE_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  use(device);
  DeviceInfo info;
  info.name = properties.name;
  info.multiprocessors = properties.multiProcessorCount;
  info.capability = 10 * properties.major + properties.minor;
  SPECMOE_CUDA_CHECK(cudaMemGetInfo(&info.free_bytes, &info.total_bytes));
  return info;
}

Stream::Stream(int device) : state_(std::make_unique<State>()) {
  device_info(device);
  state_->device = device;
  SPECMOE_CUDA_CHECK(cudaStreamCreateWithFlags(&state_->stream, cudaStreamNonBlocking));
}
Stream::~Stream() { cudaStreamDestroy(state_->stream); }

cudaStream_t native_stream(Stream& stream) {
  use(stream.device());
  return stream.state().stream;
}

int Stream::device() const { return state_->device; }
void Stream::synchronize() { SPECMOE_CUDA_CHECK(cudaStreamSynchronize(state_->stream)); }
void Stream::copy(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;  // nothing may come from nowhere
  use(state_->device);
  SPECMOE_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, state_->stream));
}
void Stream::zero(void* memory, std::size_t bytes) {
  use(state_->device);
  SPECMOE_CUDA_CHECK(cudaMemsetAsync(memory, 0, bytes, state_->stream));
}

Graph::Graph() = default;
Graph::~Graph() = default;
Graph::Graph(Graph&&) noexcept = default;
Graph& Graph::operator=(Graph&&) noexcept = default;

namespace {

/// Records `work` between begin() and cudaStreamEndCapture.
template <class Begin>
cudaGraph_t capture(Stream& stream, const Begin& begin, const std::function<void()>& work) {
  cudaStream_t queue = stream.state().stream;
  cudaGraph_t recorded = nullptr;
  use(stream.device());
  begin(queue);
  try {
    work();
  } catch (...) {
    // Leave the stream usable for whoever catches it.
    cudaStreamEndCapture(queue, &recorded);
    static_cast<void>(cudaGetLastError());
    throw;
  }
  SPECMOE_CUDA_CHECK(cudaStreamEndCapture(queue, &recorded));
  return recorded;
}

/// Adds a conditional node with `parts` bodies, which a handle of `graph` chooses between. Returns the bodies, the
/// node's own.
cudaGraph_t* add_conditional(cudaGraph_t graph, cudaGraphConditionalHandle handle, cudaGraphConditionalNodeType kind,
                             unsigned parts, const std::vector<cudaGraphNode_t>& behind, cudaGraphNode_t* node) {
  cudaGraphNodeParams params = {};
  params.type = cudaGraphNodeTypeConditional;
  params.conditional.handle = handle;
  params.conditional.type = kind;
  params.conditional.size = parts;
  SPECMOE_CUDA_CHECK(cudaGraphAddNode(node, graph, behind.data(), nullptr, behind.size(), &params));
  return params.conditional.phGraph_out;
}

/// Goes on recording into `graph`, behind its node `last` (null: from its beginning).
void begin_recording(cudaStream_t queue, cudaGraph_t graph, const cudaGraphNode_t* last) {
  SPECMOE_CUDA_CHECK(cudaStreamBeginCaptureToGraph(queue, graph, last, nullptr, last != nullptr ? 1 : 0,
                                                   cudaStreamCaptureModeThreadLocal));
}

/// The graph that is being recorded on a stream, and what the next node would come behind.
struct Recording {
  cudaGraph_t graph = nullptr;
  std::vector<cudaGraphNode_t> last;

  explicit Recording(cudaStream_t queue) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    const cudaGraphNode_t* nodes = nullptr;
    std::size_t count = 0;
    SPECMOE_CUDA_CHECK(cudaStreamGetCaptureInfo(queue, &status, nullptr, &graph, &nodes, nullptr, &count));
    SPECMOE_CHECK(status == cudaStreamCaptureStatusActive, "CUDA graph: a choice outside of what is recorded");
    last.assign(nodes, nodes + count);
  }
};

}  // namespace

void Graph::record(Stream& stream, const std::function<void()>& work) {
  auto state = std::make_unique<State>();
  const auto begin = [](cudaStream_t queue) {
    SPECMOE_CUDA_CHECK(cudaStreamBeginCapture(queue, cudaStreamCaptureModeThreadLocal));
  };
  state->graph = capture(stream, begin, work);
  SPECMOE_CUDA_CHECK(cudaGraphInstantiate(&state->ready, state->graph, 0));
  state_ = std::move(state);
}

void Graph::record_loop(Stream& stream, const std::function<void(LoopFlag)>& work) {
  auto state = std::make_unique<State>();
  use(stream.device());
  SPECMOE_CUDA_CHECK(cudaGraphCreate(&state->graph, 0));
  cudaGraphConditionalHandle handle = 0;
  SPECMOE_CUDA_CHECK(cudaGraphConditionalHandleCreate(&handle, state->graph, 1, cudaGraphCondAssignDefault));
  cudaGraphNode_t node = nullptr;
  cudaGraph_t body = add_conditional(state->graph, handle, cudaGraphCondTypeWhile, 1, {}, &node)[0];
  const auto begin = [body](cudaStream_t queue) { begin_recording(queue, body, nullptr); };
  capture(stream, begin, [&] { work({static_cast<std::uint64_t>(handle)}); });
  SPECMOE_CUDA_CHECK(cudaGraphInstantiate(&state->ready, state->graph, 0));
  state_ = std::move(state);
}

ChoiceFlag new_choice(Stream& stream) {
  cudaGraphConditionalHandle handle = 0;
  const Recording recording(native_stream(stream));
  SPECMOE_CUDA_CHECK(cudaGraphConditionalHandleCreate(&handle, recording.graph, 0, 0));
  return {static_cast<std::uint64_t>(handle)};
}

/// A stream records into one graph at a time: it leaves the outer one for the parts, and goes on behind the node.
void queue_choice(Stream& stream, ChoiceFlag choice, int parts, const std::function<void(int)>& work) {
  cudaStream_t queue = native_stream(stream);
  const Recording outer(queue);
  cudaGraph_t same = nullptr;
  SPECMOE_CUDA_CHECK(cudaStreamEndCapture(queue, &same));
  cudaGraphNode_t node = nullptr;
  const cudaGraph_t* bodies = add_conditional(outer.graph, static_cast<cudaGraphConditionalHandle>(choice.handle),
                                              cudaGraphCondTypeSwitch, static_cast<unsigned>(parts), outer.last, &node);
  for (int i = 0; i < parts; ++i) {
    capture(stream, [&](cudaStream_t) { begin_recording(queue, bodies[i], nullptr); }, [&] { work(i); });
  }
  begin_recording(queue, outer.graph, &node);
}

void Graph::launch(Stream& stream) {
  SPECMOE_CHECK(recorded(), "CUDA graph: nothing has been recorded");
  use(stream.device());
  SPECMOE_CUDA_CHECK(cudaGraphLaunch(state_->ready, stream.state().stream));
}

void* allocate_device(std::size_t bytes, int device) {
  use(device);
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());  // the process goes on
    const DeviceInfo info = device_info(device);
    fail("out of memory on CUDA device ", device, " (", info.name, "): wanted ", gigabytes(bytes), " GB, free are ",
         gigabytes(info.free_bytes), " of ", gigabytes(info.total_bytes), " GB; use a smaller model, batch or context");
  }
  check(status, "cudaMalloc");
  return memory;
}

void free_device(void* memory) { cudaFree(memory); }

void* allocate_host(std::size_t bytes) {
  void* memory = nullptr;
  SPECMOE_CUDA_CHECK(cudaMallocHost(&memory, bytes));
  return memory;
}
void free_host(void* memory) { cudaFreeHost(memory); }

void launch_kernel(const void* kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned threads,
                   std::size_t shared_bytes, Stream& stream, void** arguments) {
  use(stream.device());
  constexpr std::size_t kSharedWithoutAsking = std::size_t{48} << 10;
  if (shared_bytes > kSharedWithoutAsking) {
    SPECMOE_CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  }
  SPECMOE_CUDA_CHECK(
      cudaLaunchKernel(kernel, {grid_x, grid_y, grid_z}, {threads}, arguments, shared_bytes, stream.state().stream));
}

}  // namespace specmoe::kernels::cuda
