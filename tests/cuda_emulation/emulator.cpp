#include <array>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "tests/cuda_emulation/cuda_emulation.h"
#include "tests/cuda_emulation/fiber.h"
#include "tests/cuda_emulation/schedule.h"

// This file is compiled without sanitizers' instrumentation. What fibers call here must neither allocate nor call
// libc's memory functions: ThreadSanitizer would take that for the kernel's own, unordered accesses.

namespace cuda_emulation {

Thread* current = nullptr;

namespace {

constexpr std::size_t kMostSharedBytes = std::size_t{163} << 10;  // of a block on sm_80
constexpr unsigned kMostThreads = 1024;
constexpr unsigned kWarp = 32;
constexpr std::size_t kMostGatherings = 8;  // masks in use at once in a warp
constexpr std::size_t kMostCopies = 1024;   // asynchronous copies of one thread under way
constexpr std::uint64_t kMostYields = 1'000'000;
// As a float, half of a double or a bfloat16 it is NaN; as an index it is far outside everything.
constexpr std::uint32_t kUninitialised = 0x7fff7fffu;
constexpr std::uint32_t kCanary = 0x5ca1ab1eu;
constexpr std::size_t kCanaryWords = 16;

void quiet_copy(void* to, const void* from, std::size_t bytes) {
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}
void quiet_fill(void* to, std::uint32_t word, std::size_t words) {
  asm volatile("rep stosl" : "+D"(to), "+c"(words) : "a"(word) : "memory");
}

/// Threads that meet, at a barrier or in a warp collective. Two cells in turn: a thread that is quick to come back must
/// not order those that have yet to leave.
struct Meeting {
  unsigned arrived = 0;
  unsigned round = 0;
  Where where;
  char cells[2] = {};
};

/// One set of lanes of a warp that uses collectives.
struct Gathering {
  unsigned mask = 0;
  Meeting meeting;
  alignas(16) std::byte payload[2][kWarp][kMaxPayload];
};

struct Warp {
  std::array<Gathering, kMostGatherings> gatherings;
};

struct Copy {
  void* to;
  const void* from;
  unsigned source_bytes;
  unsigned group;
};

struct Block;

struct Worker : Thread {
  explicit Worker(void (*entry)()) : fiber(entry) {}
  Fiber fiber;
  Block* block = nullptr;
  unsigned rank = 0;
  const Meeting* waits_for = nullptr;
  // Asynchronous copies under way, oldest first, and the group that is being filled.
  std::unique_ptr<Observer> engine;
  std::array<Copy, kMostCopies> copies;
  std::size_t first_copy = 0, copy_count = 0;
  unsigned groups = 0;
};

/// A resident block: its threads are reused by the blocks that come after it.
struct Block {
  std::vector<std::unique_ptr<Worker>> workers;
  std::vector<std::unique_ptr<Warp>> warps;
  std::unique_ptr<std::uint32_t[]> arena;
  unsigned size = 0;
  unsigned ended = 0;
  Meeting barrier;
  char handed_on = 0;  // orders this block's threads after those of the block before it
};

struct Grid {
  dim3 size, block;
  std::uint64_t blocks = 0, next = 0, finished = 0;
  std::size_t shared_words = 0;
  const std::function<void()>* body = nullptr;
  std::string fault;
  std::uint64_t yields = 0;
};

struct Emulator {
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<Worker*> ready;
  std::size_t ready_count = 0;
  Fiber main;
  Grid grid;
  char start = 0, end = 0;
  std::uint64_t seed = 1;
  int resident = 2;
  std::uint64_t launches = 0;
  std::uint64_t random = 1;

  std::uint64_t draw() {
    random ^= random << 13;
    random ^= random >> 7;
    return random ^= random << 17;
  }
};

Emulator& emulator() {
  static Emulator instance;
  return instance;
}

Worker& self() { return *static_cast<Worker*>(current); }

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

/// Prints a place.
struct At {
  const Where& where;
  friend std::ostream& operator<<(std::ostream& out, const At& at) {
    return out << at.where.file_name() << ":" << at.where.line();
  }
};

/// Ends the grid with a fault. Called from fibers, which are never resumed: nothing on their stacks may own memory.
template <class... Parts>
[[noreturn]] void fault(const Parts&... parts) {
  {
    std::ostringstream text;
    (text << ... << parts);
    emulator().grid.fault = text.str();
  }
  abandon_grid();
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

/// Does the copies of all groups before `end`.
void finish_copies(unsigned end) {
  Worker& worker = self();
  bool copied = false;
  for (; worker.copy_count > 0 && worker.copies[worker.first_copy].group < end; --worker.copy_count, copied = true) {
    const Copy& copy = worker.copies[worker.first_copy];
    if (worker.engine != nullptr) {
      worker.engine->copy(copy.to, copy.from, copy.source_bytes, 16);
    } else {
      quiet_fill(copy.to, 0, 4);
      quiet_copy(copy.to, copy.from, copy.source_bytes);
    }
    worker.first_copy = (worker.first_copy + 1) % kMostCopies;
  }
  if (copied && worker.engine != nullptr) worker.engine->teach();
}

void end_worker() {
  Worker& worker = self();
  Block& block = *worker.block;
  Grid& grid = emulator().grid;
  finish_copies(worker.groups + 1);
  release(&block.handed_on);
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
    acquire(&self().block->handed_on);
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

void async_copy(void* shared, const void* global, unsigned source_bytes, Where where) {
  Worker& worker = self();
  const auto* arena = worker.block->arena.get();
  const auto* to = static_cast<const std::uint32_t*>(shared);
  if (reinterpret_cast<std::uintptr_t>(shared) % 16 != 0 || reinterpret_cast<std::uintptr_t>(global) % 16 != 0) {
    fault("asynchronous copy at ", At{where}, ": addresses must be multiples of 16");
  }
  if (to < arena || to + 4 > arena + emulator().grid.shared_words) {
    fault("asynchronous copy at ", At{where}, ": the target is outside of shared memory");
  }
  if (worker.copy_count == kMostCopies) fault("asynchronous copy at ", At{where}, ": too many under way");
  if (watches_races()) {
    if (worker.engine == nullptr) worker.engine = std::make_unique<Observer>();
    worker.engine->learn();
  }
  worker.copies[(worker.first_copy + worker.copy_count++) % kMostCopies] = {shared, global, source_bytes,
                                                                            worker.groups};
}

void async_commit() { ++self().groups; }

void async_wait(unsigned pending) {
  const unsigned groups = self().groups;
  finish_copies(groups > pending ? groups - pending : 0);
}

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
