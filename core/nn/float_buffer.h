#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace specmoe::nn {

/// 64-byte aligned floats, not initialised. reserve() keeps no contents and never shrinks, so a workspace stops
/// allocating once it has seen its largest pass.
class FloatBuffer {
 public:
  void reserve(std::size_t floats) {
    if (floats <= capacity_) return;
    constexpr std::size_t kAlignment = 64;
    const std::size_t bytes = (floats * sizeof(float) + kAlignment - 1) / kAlignment * kAlignment;
    data_.reset(static_cast<float*>(std::aligned_alloc(kAlignment, bytes)));
    capacity_ = data_ ? floats : 0;
    if (!data_) throw std::bad_alloc();
  }
  float* data() const { return data_.get(); }
  std::size_t capacity() const { return capacity_; }

 private:
  struct Free {
    void operator()(float* memory) const { std::free(memory); }
  };
  std::unique_ptr<float[], Free> data_;
  std::size_t capacity_ = 0;
};

}  // namespace specmoe::nn
