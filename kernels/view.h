#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace specmoe::kernels {

/// `rows` rows of `cols` elements; row i starts at data + i * stride. Borrowed memory.
template <class T>
struct Rows {
  T* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;

  constexpr T* row(std::int64_t i) const { return data + i * stride; }
  constexpr operator Rows<const T>() const
    requires(!std::is_const_v<T>)
  {
    return {data, rows, cols, stride};
  }
};

template <class T>
Rows<T> contiguous(T* data, std::int64_t rows, std::int64_t cols) {
  return {data, rows, cols, cols};
}

/// This thread's part of the work. A kernel is called by every thread of a team with the same arguments and its own
/// shard; the split is static, so which thread computes an element never changes its bits.
struct Shard {
  int index = 0;
  int count = 1;
};

struct Range {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

/// One range or three, to be gone through in turn.
class Ranges {
 public:
  Ranges(Range only) : parts_{only}, count_(1) {}
  Ranges(Range first, Range second, Range third) : parts_{first, second, third}, count_(3) {}
  const Range* begin() const { return parts_; }
  const Range* end() const { return parts_ + count_; }

 private:
  Range parts_[3];
  int count_;
};

/// Part `shard` of [0, n), cut at multiples of `unit`, sizes as equal as they can be.
inline Range split(std::int64_t n, Shard shard, std::int64_t unit = 1) {
  const std::int64_t units = (n + unit - 1) / unit;
  const std::int64_t begin = units * shard.index / shard.count;
  const std::int64_t end = units * (shard.index + 1) / shard.count;
  return {std::min(n, begin * unit), std::min(n, end * unit)};
}

}  // namespace specmoe::kernels
