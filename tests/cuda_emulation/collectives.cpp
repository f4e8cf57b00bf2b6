#include <string_view>

#include "tests/cuda_emulation/emulator.h"
#include "tests/cuda_emulation/schedule.h"

// Where threads meet: barriers, warp collectives, atomics, asynchronous copies.

namespace cuda_emulation {
namespace {

/// Waits until `expected` threads have arrived; `all` calls its argument with each of them.
template <class All>
void meet(Meeting& meeting, unsigned expected, const Where& where, bool orders_memory, const All& all) {
  Worker& worker = self();
  const Where& first = meeting.where;
  if (meeting.arrived == 0) {
    meeting.where = where;
  } else if (first.line() != where.line() || std::string_view(first.file_name()) != where.file_name()) {
    fault("divergent barrier: thread ", worker.rank, " is at ", At{where}, " while others of its block wait at ",
          At{first});
  }
  char* cell = &meeting.cells[meeting.round % 2];
  if (orders_memory) release(cell);
  if (++meeting.arrived == expected) {
    meeting.arrived = 0;
    ++meeting.round;
    all([&](Worker& other) {
      if (&other != &worker) push_ready(other);
    });
    push_ready(worker);
  } else {
    worker.waits_for = &meeting;
  }
  run_next();
  if (orders_memory) acquire(cell);
}

}  // namespace

void finish_copies(unsigned end) {
  Worker& worker = self();
  bool copied = false;
  for (; worker.copy_count > 0 && worker.copies[worker.first_copy].group < end; --worker.copy_count, copied = true) {
    const Copy& copy = worker.copies[worker.first_copy];
    if (worker.engine != nullptr) {
      worker.engine->copy(copy.to, copy.from, copy.wanted ? copy.bytes : 0, copy.bytes);
    } else if (copy.wanted) {
      quiet_copy(copy.to, copy.from, copy.bytes);
    } else {
      quiet_fill(copy.to, 0, copy.bytes / 4);
    }
    worker.first_copy = (worker.first_copy + 1) % kMostCopies;
  }
  if (copied && worker.engine != nullptr) worker.engine->teach();
}

std::byte* shared_arena() { return reinterpret_cast<std::byte*>(self().block->arena.get()); }

unsigned lane() { return self().rank % kWarp; }

void block_barrier(Where where) {
  Block& block = *self().block;
  meet(block.barrier, block.size, where, true, [&](const auto& see) {
    for (unsigned i = 0; i < block.size; ++i) see(*block.workers[i]);
  });
}

const std::byte* meet_lanes(unsigned mask, const void* payload, std::size_t bytes, bool orders_memory, Where where) {
  Worker& worker = self();
  Block& block = *worker.block;
  const unsigned first = worker.rank / kWarp * kWarp;
  const unsigned lanes = std::min(kWarp, block.size - first);
  if ((mask >> lane() & 1u) == 0) fault("warp collective at ", At{where}, ": its mask leaves the caller out");
  if (lanes < kWarp && mask >> lanes != 0 && mask != 0xffffffffu) {
    fault("warp collective at ", At{where}, ": its mask names lanes that the block does not have");
  }
  Gathering* gathering = nullptr;
  for (Gathering& candidate : block.warps[worker.rank / kWarp]->gatherings) {
    if (candidate.mask != mask && candidate.mask != 0) continue;
    gathering = &candidate;
    break;
  }
  if (gathering == nullptr) fault("warp collective at ", At{where}, ": too many different masks in one warp");
  gathering->mask = mask;
  auto& payloads = gathering->payload[gathering->meeting.round % 2];
  quiet_copy(payloads[lane()], payload, bytes);
  const auto expected = static_cast<unsigned>(__builtin_popcount(lanes < kWarp ? mask & ((1u << lanes) - 1) : mask));
  meet(gathering->meeting, expected, where, orders_memory, [&](const auto& see) {
    for (unsigned i = 0; i < lanes; ++i) {
      if ((mask >> i & 1u) != 0) see(*block.workers[first + i]);
    }
  });
  return payloads[0];
}

void yield() {
  Grid& grid = emulator().grid;
  if (++grid.yields > kMostYields) fault("the grid makes no progress: a thread waits for a block that is not resident");
  push_ready(self());
  run_next();
}

void async_copy(void* shared, const void* global, unsigned bytes, bool wanted, Where where) {
  Worker& worker = self();
  const auto* arena = worker.block->arena.get();
  const auto* to = static_cast<const std::uint32_t*>(shared);
  if (reinterpret_cast<std::uintptr_t>(shared) % bytes != 0 || reinterpret_cast<std::uintptr_t>(global) % bytes != 0) {
    fault("asynchronous copy at ", At{where}, ": addresses must be multiples of ", bytes);
  }
  if (to < arena || to + bytes / sizeof(*to) > arena + emulator().grid.shared_words) {
    fault("asynchronous copy at ", At{where}, ": the target is outside of shared memory");
  }
  if (worker.copy_count == kMostCopies) fault("asynchronous copy at ", At{where}, ": too many under way");
  if (watches_races()) {
    if (worker.engine == nullptr) worker.engine = std::make_unique<Observer>();
    worker.engine->learn();
  }
  worker.copies[(worker.first_copy + worker.copy_count++) % kMostCopies] = {shared, global, bytes, wanted,
                                                                            worker.groups};
}

void async_commit() { ++self().groups; }

void async_wait(unsigned pending) {
  const unsigned groups = self().groups;
  finish_copies(groups > pending ? groups - pending : 0);
}

}  // namespace cuda_emulation
