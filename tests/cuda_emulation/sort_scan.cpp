#include "kernels/cuda/sort_scan.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/check.h"

/// kernels/cuda/sort_scan.h without CUB.
namespace specmoe::kernels::cuda {
namespace {

void check_scratch(const void* scratch, std::size_t bytes, int items) {
  SPECMOE_CHECK(scratch != nullptr && bytes >= sizeof(std::int32_t) * static_cast<std::size_t>(items),
                "sort_scan: the scratch is for fewer items than ", items);
}

}  // namespace

std::size_t sort_scan_scratch(int items, Stream&) { return sizeof(std::int32_t) * static_cast<std::size_t>(items); }

void sort_pairs(const std::int32_t* keys, const std::int32_t* values, int items, int bits, std::int32_t* sorted_keys,
                std::int32_t* sorted_values, void* scratch, std::size_t scratch_bytes, Stream& stream) {
  check_scratch(scratch, scratch_bytes, items);
  queue_grid(1, 1, 1, 1, 0, stream, [=] {
    std::vector<int> order(static_cast<std::size_t>(items));
    std::iota(order.begin(), order.end(), 0);
    for (const int i : order) {
      SPECMOE_CHECK(keys[i] >= 0 && keys[i] >> bits == 0, "sort_pairs: key ", keys[i], " has more than ", bits,
                    " bits");
    }
    std::stable_sort(order.begin(), order.end(), [keys](int a, int b) { return keys[a] < keys[b]; });
    for (int i = 0; i < items; ++i) {
      sorted_keys[i] = keys[order[static_cast<std::size_t>(i)]];
      sorted_values[i] = values[order[static_cast<std::size_t>(i)]];
    }
  });
}

void running_sums(const std::int32_t* values, int items, std::int32_t* sums, void* scratch, std::size_t scratch_bytes,
                  Stream& stream) {
  check_scratch(scratch, scratch_bytes, items);
  queue_grid(1, 1, 1, 1, 0, stream, [=] { std::partial_sum(values, values + items, sums); });
}

}  // namespace specmoe::kernels::cuda
