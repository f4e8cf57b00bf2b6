#include "tests/cuda_emulation/emulator.h"

#include <algorithm>
#include <cstdlib>

#include "tests/cuda_emulation/schedule.h"

// Blocks and threads: who runs, who runs next.

namespace cuda_emulation {

Thread* current = nullptr;

Emulator& emulator() {
  static Emulator instance;
  return instance;
}

void push_ready(Worker& worker) {
  Emulator& e = emulator();
  worker.waits_for = nullptr;
  e.ready[e.ready_count++] = &worker;
}

[[noreturn]] void abandon_grid() {
  release(&emulator().end);
  emulator().main.switch_from(self().fiber);
  std::abort();
}

/// Runs another ready thread; the caller goes on when it is made ready and drawn. With none ready, all wait for threads
/// that will not come.
void run_next() {
  Emulator& e = emulator();
  Worker& from = self();
  if (e.ready_count == 0) {
    if (e.grid.finished == e.grid.blocks) {
      e.main.switch_from(from.fiber);  // comes back with a block of a later launch
      return;
    }
    for (const auto& block : e.blocks) {
      for (const auto& worker : block->workers) {
        if (worker->waits_for == nullptr) continue;
        fault("divergent barrier: thread ", worker->rank, " of ", block->size, " waits at ",
              At{worker->waits_for->where}, " with ", worker->waits_for->arrived, " arrived and ", block->ended,
              " ended");
      }
    }
    fault("no thread can run");
  }
  const std::size_t pick = e.draw() % e.ready_count;
  Worker& to = *e.ready[pick];
  e.ready[pick] = e.ready[--e.ready_count];
  current = &to;
  if (&to != &from) to.fiber.switch_from(from.fiber);
}

namespace {

void start_worker(Worker& worker, dim3 block_index) {
  const dim3 size = emulator().grid.block;
  worker.thread_index = {worker.rank % size.x, worker.rank / size.x % size.y, worker.rank / (size.x * size.y)};
  worker.block_index = block_index;
  worker.block_size = size;
  worker.grid_size = emulator().grid.size;
  worker.first_copy = worker.copy_count = 0;
  worker.groups = 0;
  push_ready(worker);
}

/// Gives a resident block the next block of the grid.
void start_block(Block& block) {
  Grid& grid = emulator().grid;
  if (grid.next == grid.blocks) return;
  const std::uint64_t index = grid.next++;
  const std::uint64_t plane = std::uint64_t{grid.size.x} * grid.size.y;
  block.ended = 0;
  ++block.generation;
  block.barrier = {};
  for (const auto& warp : block.warps) {
    for (Gathering& gathering : warp->gatherings) {
      gathering.mask = 0;
      gathering.meeting = {};
    }
  }
  quiet_fill(block.arena.get(), kUninitialised, grid.shared_words);
  quiet_fill(block.arena.get() + grid.shared_words, kCanary, kCanaryWords);
  for (unsigned i = 0; i < block.size; ++i) {
    start_worker(*block.workers[i],
                 {static_cast<unsigned>(index % grid.size.x), static_cast<unsigned>(index / grid.size.x % grid.size.y),
                  static_cast<unsigned>(index / plane)});
  }
}

void end_worker() {
  Worker& worker = self();
  Block& block = *worker.block;
  Grid& grid = emulator().grid;
  finish_copies(worker.groups + 1);
  release(&block.handed_on[block.generation % 2]);
  release(&emulator().end);
  if (++block.ended < block.size) return;
  for (std::size_t i = 0; i < kCanaryWords; ++i) {
    if (block.arena[grid.shared_words + i] != kCanary) {
      fault("block (", worker.block_index.x, ", ", worker.block_index.y, ", ", worker.block_index.z,
            ") wrote past the end of its shared memory");
    }
  }
  ++grid.finished;
  start_block(block);
}

void run_worker() {
  Fiber::started();
  for (;;) {
    acquire(&emulator().start);
    acquire(&self().block->handed_on[(self().block->generation + 1) % 2]);
    try {
      (*emulator().grid.body)();
    } catch (const std::exception& error) {
      emulator().grid.fault = error.what();
    }
    if (!emulator().grid.fault.empty()) abandon_grid();
    end_worker();
    run_next();
  }
}

void check_launch(dim3 grid, dim3 block, std::size_t shared_bytes) {
  const unsigned threads = block.x * block.y * block.z;
  if (threads == 0 || threads > kMostThreads) throw Fault("launch: a block has 1 to 1024 threads");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) throw Fault("launch: the grid is empty");
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) throw Fault("launch: the grid is too large");
  if (shared_bytes > kMostSharedBytes) throw Fault("launch: more shared memory than a block has on sm_80");
}

/// Makes room for the resident blocks of a launch. Here, outside of fibers, allocation is harmless.
void prepare(Emulator& e, std::size_t resident, unsigned threads) {
  while (e.blocks.size() < resident) e.blocks.push_back(std::make_unique<Block>());
  for (const auto& block : e.blocks) {
    while (block->workers.size() < threads) {
      block->workers.push_back(std::make_unique<Worker>(run_worker));
      block->workers.back()->block = block.get();
      block->workers.back()->rank = static_cast<unsigned>(block->workers.size()) - 1;
    }
    while (block->warps.size() * kWarp < threads) block->warps.push_back(std::make_unique<Warp>());
    block->size = threads;
    block->ended = threads;
    block->arena.reset(new std::uint32_t[e.grid.shared_words + kCanaryWords]);
  }
  e.ready.resize(std::max<std::size_t>(e.ready.size(), e.blocks.size() * kMostThreads));
  e.ready_count = 0;
}

}  // namespace

void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& body) {
  check_launch(grid, block, shared_bytes);
  Emulator& e = emulator();
  e.grid = Grid{};
  e.grid.size = grid;
  e.grid.block = block;
  e.grid.blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  e.grid.shared_words = (shared_bytes + 15) / 16 * 4;
  e.grid.body = &body;
  e.random = (e.seed + ++e.launches) * 0x9e3779b97f4a7c15u + 1;  // another order at every launch
  const auto resident = std::min<std::uint64_t>(e.grid.blocks, static_cast<std::uint64_t>(e.resident));
  prepare(e, resident, block.x * block.y * block.z);
  const unsigned long races_before = race_count();
  release(&e.start);
  for (std::size_t i = 0; i < resident; ++i) start_block(*e.blocks[i]);
  // The first thread is entered from here; the last one comes back.
  const std::size_t pick = e.draw() % e.ready_count;
  Worker& first = *e.ready[pick];
  e.ready[pick] = e.ready[--e.ready_count];
  current = &first;
  first.fiber.switch_from(e.main);
  current = nullptr;
  acquire(&e.end);
  if (!e.grid.fault.empty()) {
    e.blocks.clear();  // their threads are in the middle of the kernel
    throw Fault(e.grid.fault);
  }
  if (race_count() != races_before) throw Fault("data race: ThreadSanitizer's report says where");
}

void set_schedule(std::uint64_t seed, int resident_blocks) {
  emulator().seed = seed;
  emulator().launches = 0;
  emulator().resident = resident_blocks;
}

}  // namespace cuda_emulation
