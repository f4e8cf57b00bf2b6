#pragma once

#include <cstdint>
#include <stdexcept>

namespace cuda_emulation {

/// A kernel broke a rule: a data race, a barrier that not all threads reach, shared memory past its end, ...
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Seeds the orders in which threads run, a new one at every launch, and sets how many blocks are resident at once.
void set_schedule(std::uint64_t seed, int resident_blocks = 2);

/// Whether data races are watched: the kernels were compiled for ThreadSanitizer.
bool watches_races();

/// While it lives, ThreadSanitizer writes no reports: for tests that plant races.
class QuietRaces {
 public:
  QuietRaces();
  ~QuietRaces();
};

/// Products of whole matrices that were computed so far: how many went the way that cuBLASLt has on a device.
std::uint64_t dense_product_count();

}  // namespace cuda_emulation
