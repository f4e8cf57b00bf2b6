#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

/// Device memory, streams and graphs. runtime.cu has them on CUDA; tests/cuda_emulation has them on the emulator.
namespace specmoe::kernels::cuda {

struct DeviceInfo {
  std::string name;
  int multiprocessors = 0;
  int capability = 0;  // 90 for 9.0
  std::size_t total_bytes = 0;
  std::size_t free_bytes = 0;
};

/// How many devices can be used here; 0 without a driver.
int device_count();
/// Throws Error when there is no such device.
DeviceInfo device_info(int device);

/// An order of work on one device. Calls return before the work is done; synchronize() waits for it.
class Stream {
 public:
  explicit Stream(int device = 0);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  int device() const;
  void synchronize();
  /// Between host and device, or within one of them. Host memory must stay as it is until the copy is done.
  void copy(void* to, const void* from, std::size_t bytes);
  void zero(void* memory, std::size_t bytes);

  struct State;
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

/// Through which a kernel of a loop says whether there is another round: continue_loop() of ptx.h. Null: nobody asks.
struct LoopFlag {
  std::uint64_t handle = 0;
};

/// Through which a kernel says which part of a queue_choice() is done: choose_part() of ptx.h. Null: nobody asks.
struct ChoiceFlag {
  std::uint64_t handle = 0;
};

/// What was queued while it was recorded, to be queued again as a whole. Sizes and addresses stay what they were.
class Graph {
 public:
  Graph();
  ~Graph();
  Graph(Graph&&) noexcept;
  Graph& operator=(Graph&&) noexcept;

  /// Queues nothing now; what `work` would queue on the stream becomes the graph.
  void record(Stream& stream, const std::function<void()>& work);
  /// The same, to be done again and again on the device for as long as a kernel of `work` asks for it through the flag:
  /// a conditional node of kind WHILE. `work` may queue kernels only.
  void record_loop(Stream& stream, const std::function<void(LoopFlag)>& work);
  bool recorded() const { return state_ != nullptr; }
  void launch(Stream& stream);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// A flag of the graph that is being recorded on the stream.
ChoiceFlag new_choice(Stream& stream);
/// One of `parts` parts of that graph, whichever a kernel that was queued before chooses in each launch: a conditional
/// node of kind SWITCH. work(i) queues part i, kernels only.
void queue_choice(Stream& stream, ChoiceFlag choice, int parts, const std::function<void(int)>& work);

/// Device memory of `count` elements, uninitialised. Throws Error that says what was wanted and what there is.
void* allocate_device(std::size_t bytes, int device = 0);
void free_device(void* memory);

/// Host memory that devices copy from and to without a detour.
void* allocate_host(std::size_t bytes);
void free_host(void* memory);

template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(std::size_t count, int device = 0)
      : data_(static_cast<T*>(allocate_device(count * sizeof(T), device))), size_(count) {}
  T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(T* memory) const { free_device(memory); }
  };
  std::unique_ptr<T, Free> data_;
  std::size_t size_ = 0;
};

template <class T>
class HostArray {
 public:
  HostArray() = default;
  explicit HostArray(std::size_t count) : data_(static_cast<T*>(allocate_host(count * sizeof(T)))) {}
  T* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* memory) const { free_host(memory); }
  };
  std::unique_ptr<T, Free> data_;
};

#ifdef __CUDACC__
void launch_kernel(const void* kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned threads,
                   std::size_t shared_bytes, Stream& stream, void** arguments);
#else
void queue_grid(unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned threads, std::size_t shared_bytes,
                Stream& stream, std::function<void()> body);
#endif

}  // namespace specmoe::kernels::cuda
