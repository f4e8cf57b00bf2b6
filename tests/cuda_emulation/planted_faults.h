#pragma once

#include <vector>

namespace specmoe::kernels::cuda {

/// Small kernels, each right or, when asked, with one fault of a kind that real kernels have. They run in the emulation
/// and return what they computed; `expected` is what the right one does.
struct Planted {
  const char* name;
  std::vector<float> (*run)(bool faulty);
  std::vector<float> expected;
  bool race;  // seen by ThreadSanitizer, or as a wrong value under some schedules
};

std::vector<Planted> planted_faults();

}  // namespace specmoe::kernels::cuda
